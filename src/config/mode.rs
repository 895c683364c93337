//! `mode` and `pilot`: how far the daemon may go.

use super::Mode;
use super::policies::{cost_centers, texts};
use super::read::{Field, Section};
use crate::policy::Pilot;

/// Both are warned of while they are on, because a site that forgot them waits in vain.
pub(super) fn mode_and_pilot(root: &mut Section<'_>) -> (Mode, Option<Pilot>) {
    let mode = root.or("mode", Mode::Enforce, |mode| mode.choice(&[("enforce", Mode::Enforce), ("observe", Mode::Observe)]));
    if mode == Mode::Observe {
        root.reader.warn("mode: observe: every pass only says what it would do; nothing is changed and no mail is sent");
    }
    let pilot = root.field("pilot").and_then(|field| pilot(&field));
    if let Some(Pilot { logins, cost_center }) = &pilot {
        let (logins, centers) = (logins.len(), cost_center.len());
        root.reader.warn(format!(
            "pilot: changes reach only the {logins} logins and the members of the {centers} cost centers that it names; all others are held back"
        ));
    }
    (mode, pilot)
}

/// An empty one would hold everybody back, which `mode: observe` says more clearly.
fn pilot(field: &Field<'_>) -> Option<Pilot> {
    let mut section = field.section("{logins: […], cost_center: […]}")?;
    let logins = section.field("logins").map_or_else(Vec::new, |field| texts(&field, "logins, such as [eva, adam@example.org]"));
    let cost_center = section.field("cost_center").map_or_else(Vec::new, |field| cost_centers(&field));
    if logins.is_empty() && cost_center.is_empty() {
        section.problem("names nobody; give logins or cost_center, or remove it");
    }
    section.finish();
    Some(Pilot { logins: logins.into_iter().collect(), cost_center })
}
