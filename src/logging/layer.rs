//! Turns what `tracing` hands over into lines.

use std::error::Error;
use std::fmt::Debug;

use chrono::Utc;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::line::{Fields, Line};
use super::{Render, chain};

pub(super) struct LineLayer {
    outputs: Vec<Output>,
}

/// One place that lines go to.
pub(super) struct Output {
    pub(super) render: Render,
    /// Is called once for each line, which ends with a line break.
    pub(super) take: Box<dyn Fn(String) + Send + Sync>,
}

impl LineLayer {
    pub(super) fn new(outputs: Vec<Output>) -> LineLayer {
        LineLayer { outputs }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LineLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut collected = Collect::default();
        attributes.record(&mut collected);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(collected.fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut collected = Collect::default();
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            std::mem::swap(&mut collected.fields, fields);
            values.record(&mut collected);
            *fields = collected.fields;
        }
    }

    /// The fields of the spans around an event stand before its own, outermost first.
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut collected = Collect::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions().get::<Fields>() {
                fields.0.iter().for_each(|(name, value)| collected.fields.set(name, value.clone()));
            }
        }
        event.record(&mut collected);
        let line = Line {
            time: Utc::now(),
            level: *event.metadata().level(),
            target: event.metadata().target(),
            message: &collected.message,
            fields: &collected.fields,
        };
        self.outputs.iter().for_each(|output| (output.take)((output.render)(&line)));
    }
}

#[derive(Default)]
struct Collect {
    message: String,
    fields: Fields,
}

impl Collect {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => self.fields.set(name, value),
        }
    }
}

impl Visit for Collect {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::from(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add(field, Value::String(chain(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, Value::from(value));
    }
}
