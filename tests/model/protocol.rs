//! The protocol as steps. Whatever moves an issuance asks the journal's own table, `credkeeper::journal::state::next`; the order
//! of the steps is that of `reconcile/batch.rs`, `recover.rs` and `deliver.rs`, whose names they bear.

use std::collections::BTreeMap;

use credkeeper::journal::state::{Event, State, next};
use stateright::{Model, Property};

use crate::world::{Answer, Broken, Faults, Hand, Issuance, OLD, Pins, Process, Stage, Step, Transaction, USERS, World};

/// What a careless hand might make of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    MailsBeforeCommit,
    PlansAfterCommit,
    LooksWithoutTheLock,
    AbandonsOnTimeout,
    LooksForTheWholeRow,
    MarksBeforeTheAnswer,
    TakesBackWithoutHold,
    NeverLooksAgain,
    SendsWhatLayTooLong,
    TellsWhatStandsNow,
    RetriesBesideAnother,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Protocol {
    /// Two hosts have a journal each, which nobody supports.
    pub hosts: usize,
    pub take_back: bool,
    pub faults: Faults,
    pub mistake: Option<Mistake>,
}

/// One step of somebody. A number is a host's, where no field says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    // The daemon: once it has the journal's file lock it is the only one with that journal.
    Starts(usize),
    Leads(usize),
    // reconcile/batch.rs, in the order in which they happen.
    Begins { host: usize, draws_anew: bool },
    Writes(usize),
    NotesPlanned(usize),
    SendsCommit(usize),
    HearsCommitted(usize),
    HearsRefused(usize),
    // recover.rs
    LooksWhatLanded(usize),
    LockTimesOut(usize),
    Resolves(usize),
    // deliver.rs; the issuance by its place in the journal.
    Takes { host: usize, issuance: usize },
    Mails { host: usize, issuance: usize, reply: Reply },
    Marks { host: usize, issuance: usize, event: Event },
    // The database server.
    ServerCommits,
    ServerRollsBack,
    // From here on what happens to them.
    MinutePasses,
    Crashes(usize),
    CommitAnswerIsLost(usize),
    LosesLead(usize),
    VendorDeletes { user: usize },
    VendorReplaces { user: usize },
    VendorMoves { user: usize },
    OperatorReleases { host: usize, user: usize },
    OperatorRetries { host: usize, issuance: usize },
}

/// What the mail server says, or does not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reply {
    Accepted,
    /// It has the mail, and its 250 does not arrive.
    AcceptedUnheard,
    /// 4xx.
    Later,
    /// 5xx.
    No,
}

impl Action {
    /// Whether it happens sooner or later if nothing more goes wrong.
    fn is_ours(self) -> bool {
        !matches!(
            self,
            Action::MinutePasses
                | Action::Crashes(_)
                | Action::CommitAnswerIsLost(_)
                | Action::LosesLead(_)
                | Action::VendorDeletes { .. }
                | Action::VendorReplaces { .. }
                | Action::VendorMoves { .. }
                | Action::OperatorReleases { .. }
                | Action::OperatorRetries { .. }
        )
    }
}

impl Protocol {
    fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// Nobody has anything left to do, until something else happens.
    pub fn is_quiet(&self, world: &World) -> bool {
        let mut actions = Vec::new();
        self.actions(world, &mut actions);
        world.broken.is_none() && !actions.into_iter().any(Action::is_ours)
    }

    /// The plan for one user, from what stands and what this journal knows.
    fn step(&self, world: &World, host: usize, user: usize, pin: Option<u8>) -> Option<Step> {
        let (stands, host) = (world.stored[user], &world.hosts[host]);
        if host.held[user] || host.has_open(user) {
            return None;
        }
        let dead = |i: &Issuance| i.user == user && i.state == State::Undeliverable && i.pin().is_some_and(|pin| stands.has(pin));
        if let Some(of) = host.journal.iter().position(dead).filter(|_| self.take_back)
            && let Step::Issue { pin, before } = host.journal[of].step
        {
            return Some(Step::TakeBack { of, pin, before });
        }
        stands.valid().is_empty().then_some(())?;
        Some(Step::Issue { pin: pin?, before: stands })
    }

    /// All who are due make one batch, and one transaction.
    fn plan(&self, world: &World, host: usize, draws_anew: bool) -> [Option<Step>; USERS] {
        let quarantine = |pin: &u8| world.hosts[host].journal.iter().any(|i| i.pin() == Some(*pin) && i.state == State::TakenBack);
        let anywhere = world.stored.iter().fold(Pins::default(), |all, pins| all.with(*pins));
        // Any number that nobody has is as good as another, but for those that were somebody's before.
        let mut free: Vec<u8> = (0..OLD).filter(|pin| !anywhere.has(*pin) && !quarantine(pin)).collect();
        free.sort_by_key(|pin| (world.drawn.has(*pin) == draws_anew, *pin));
        let mut free = free.into_iter();
        let mut plan = [None; USERS];
        for (user, step) in plan.iter_mut().enumerate() {
            *step = self.step(world, host, user, free.as_slice().first().copied());
            if matches!(step, Some(Step::Issue { .. })) {
                free.next();
            }
        }
        plan
    }

    /// Whether the database holds what an issuance wrote.
    fn landed(&self, world: &World, issuance: &Issuance) -> bool {
        let stands = world.stored[issuance.user];
        match issuance.step {
            Step::Issue { pin, .. } => stands.has(pin) && !(self.has(Mistake::LooksForTheWholeRow) && world.moved[issuance.user]),
            Step::TakeBack { pin, .. } => !stands.has(pin),
        }
    }

    fn pass(&self, world: &World, host: usize, stage: &Stage, actions: &mut Vec<Action>) {
        let leads = world.leader == Some(host);
        let unresolved = world.hosts[host].is_planned();
        match stage {
            Stage::Idle if leads && unresolved => {
                if world.transaction.is_none() || self.has(Mistake::LooksWithoutTheLock) {
                    actions.push(Action::LooksWhatLanded(host));
                } else if self.has(Mistake::AbandonsOnTimeout) {
                    actions.push(Action::LockTimesOut(host));
                }
            }
            Stage::Idle if leads && world.transaction.is_none() => {
                let [anew, again] = [true, false].map(|draws_anew| self.plan(world, host, draws_anew));
                if anew.iter().any(Option::is_some) {
                    actions.push(Action::Begins { host, draws_anew: true });
                    if again != anew {
                        actions.push(Action::Begins { host, draws_anew: false });
                    }
                }
            }
            Stage::Idle => {}
            Stage::Looked(_) => actions.push(Action::Resolves(host)),
            Stage::Begun(_) => actions.push(Action::Writes(host)),
            Stage::Written(_) if self.has(Mistake::PlansAfterCommit) => actions.push(Action::SendsCommit(host)),
            Stage::Written(_) => actions.push(Action::NotesPlanned(host)),
            Stage::Planned(_) => actions.push(Action::SendsCommit(host)),
            Stage::Sent { answer, .. } => {
                match answer {
                    Some(true) => actions.push(Action::HearsCommitted(host)),
                    Some(false) => actions.push(Action::HearsRefused(host)),
                    None => {}
                }
                if world.faults.lost_answers > 0 {
                    actions.push(Action::CommitAnswerIsLost(host));
                }
            }
        }
    }

    fn delivery(&self, world: &World, host: usize, hands: &BTreeMap<usize, Hand>, actions: &mut Vec<Action>) {
        for (issuance, row) in world.hosts[host].journal.iter().enumerate() {
            match hands.get(&issuance) {
                None => {
                    let due = row.state == State::Committed || (row.state == State::Planned && self.has(Mistake::MailsBeforeCommit));
                    if due && world.leader == Some(host) {
                        actions.push(Action::Takes { host, issuance });
                    }
                }
                Some(Hand::Ready { .. }) => {
                    let replies = [Reply::Accepted, Reply::AcceptedUnheard, Reply::Later, Reply::No];
                    actions.extend(replies.map(|reply| Action::Mails { host, issuance, reply }));
                }
                Some(Hand::Told(answer)) => {
                    let events: &[Event] = match answer {
                        Answer::Accepted => &[Event::Accepted],
                        Answer::Rejected => &[Event::Rejected],
                        Answer::Deferred => &[Event::Deferred, Event::GaveUp],
                        Answer::Gone => &[Event::Gone],
                    };
                    actions.extend(events.iter().map(|event| Action::Marks { host, issuance, event: *event }));
                }
            }
        }
    }

    fn server(world: &World, actions: &mut Vec<Action>) {
        let Some(transaction) = &world.transaction else { return };
        if transaction.committing {
            actions.push(Action::ServerCommits);
        }
        // Whoever is gone without COMMIT is rolled back; one that was sent may fail as well as land.
        if !transaction.connected || (transaction.committing && world.faults.refused_commits > 0) {
            actions.push(Action::ServerRollsBack);
        }
    }

    fn world_outside(&self, world: &World, actions: &mut Vec<Action>) {
        let ready = |p: &Process| p.hands.values().any(|hand| matches!(hand, Hand::Ready { sure: true }));
        if world.issuances().any(|i| i.fresh) || world.hosts.iter().filter_map(|h| h.process.as_ref()).any(ready) {
            actions.push(Action::MinutePasses);
        }
        if world.faults.interferences > 0 {
            for user in 0..USERS {
                let locked = world.transaction.as_ref().and_then(|t| t.written[user]).is_some_and(Step::locks);
                if !locked && !world.stored[user].is_empty() {
                    actions.push(Action::VendorDeletes { user });
                }
                if !locked {
                    actions.push(Action::VendorReplaces { user });
                }
                let in_doubt = world.issuances().any(|i| i.user == user && i.state == State::Planned);
                if in_doubt && !world.moved[user] && world.stored[user].ours().next().is_some() {
                    actions.push(Action::VendorMoves { user });
                }
            }
        }
        for (host, it) in world.hosts.iter().enumerate() {
            let Some(process) = &it.process else { continue };
            if world.faults.crashes > 0 {
                actions.push(Action::Crashes(host));
            }
            if world.hosts.len() > 1 && world.leader == Some(host) && world.faults.lost_answers > 0 {
                actions.push(Action::LosesLead(host));
            }
            if world.faults.releases > 0 {
                actions.extend((0..USERS).filter(|user| it.held[*user]).map(|user| Action::OperatorReleases { host, user }));
            }
            // Between two passes only, and only where no other change of that user is under way.
            if world.faults.retries > 0 && process.stage == Stage::Idle {
                let free = |user| !it.has_open(user) || self.has(Mistake::RetriesBesideAnother);
                let dead = it.journal.iter().enumerate().filter(|(_, i)| i.state == State::Undeliverable && free(i.user));
                actions.extend(dead.map(|(issuance, _)| Action::OperatorRetries { host, issuance }));
            }
        }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.hosts, self.faults)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken.is_some() {
            return;
        }
        for (host, it) in world.hosts.iter().enumerate() {
            match &it.process {
                None => actions.push(Action::Starts(host)),
                Some(process) => {
                    if world.leader.is_none() {
                        actions.push(Action::Leads(host));
                    }
                    self.pass(world, host, &process.stage, actions);
                    self.delivery(world, host, &process.hands, actions);
                }
            }
        }
        Protocol::server(world, actions);
        self.world_outside(world, actions);
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        self.act(&mut world, action)?;
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        crate::properties::all()
    }
}

impl Protocol {
    fn act(&self, world: &mut World, action: Action) -> Option<()> {
        match action {
            Action::Starts(host) => world.hosts[host].process = Some(Process { stage: Stage::Idle, hands: BTreeMap::new() }),
            Action::Leads(host) => world.leader = Some(host),
            Action::Begins { host, draws_anew } => {
                let plan = self.plan(world, host, draws_anew);
                world.transaction = Some(Transaction { host, connected: true, committing: false, written: [None; USERS] });
                world.stage(host, Stage::Begun(plan))?;
            }
            Action::Writes(host) => {
                let Stage::Begun(plan) = world.hosts[host].process.as_ref()?.stage.clone() else { return None };
                // Compare and set: the rows that a change names must still be there.
                let written: Vec<Option<Step>> =
                    plan.iter().enumerate().map(|(user, step)| step.filter(|s| s.hits(world.stored[user]))).collect();
                let written: [Option<Step>; USERS] = written.try_into().ok()?;
                if written.iter().all(Option::is_none) {
                    return world.roll_back(host);
                }
                world.transaction.as_mut()?.written = written;
                world.stage(host, Stage::Written(written))?;
            }
            Action::NotesPlanned(host) => {
                let Stage::Written(written) = world.hosts[host].process.as_ref()?.stage else { return None };
                if (0..USERS).any(|user| written[user].is_some() && world.hosts[host].has_open(user)) {
                    return world.roll_back(host); // the journal refuses: fail closed
                }
                world.note_planned(host, written);
                world.stage(host, Stage::Planned(written))?;
            }
            Action::SendsCommit(host) => {
                let (Stage::Written(written) | Stage::Planned(written)) = world.hosts[host].process.as_ref()?.stage else { return None };
                world.transaction.as_mut()?.committing = true;
                world.stage(host, Stage::Sent { written, answer: None })?;
            }
            Action::HearsCommitted(host) => {
                if self.has(Mistake::PlansAfterCommit) {
                    let Stage::Sent { written, .. } = world.hosts[host].process.as_ref()?.stage else { return None };
                    world.note_planned(host, written);
                }
                let all = vec![true; world.hosts[host].journal.len()];
                self.settle(world, host, &all);
                world.stage(host, Stage::Idle)?;
            }
            Action::HearsRefused(host) | Action::LockTimesOut(host) => {
                let nothing = vec![false; world.hosts[host].journal.len()];
                self.settle(world, host, &nothing);
                world.stage(host, Stage::Idle)?;
            }
            Action::LooksWhatLanded(host) => {
                let landed = world.hosts[host].journal.iter().map(|i| i.state == State::Planned && self.landed(world, i)).collect();
                world.stage(host, Stage::Looked(landed))?;
            }
            Action::Resolves(host) => {
                let Stage::Looked(landed) = world.hosts[host].process.as_ref()?.stage.clone() else { return None };
                self.settle(world, host, &landed);
                world.stage(host, Stage::Idle)?;
            }
            Action::Takes { host, issuance } => self.take(world, host, issuance)?,
            Action::Mails { host, issuance, reply } => self.mail(world, host, issuance, reply)?,
            Action::Marks { host, issuance, event } => {
                world.hosts[host].process.as_mut()?.hands.remove(&issuance);
                world.moves(host, issuance, event);
            }
            Action::ServerCommits => world.land()?,
            Action::ServerRollsBack => {
                let transaction = world.transaction.take()?;
                if transaction.connected {
                    world.faults.refused_commits -= 1;
                    world.answer(transaction.host, false)?;
                }
            }
            Action::MinutePasses => self.minute(world),
            Action::Crashes(host) => {
                world.faults.crashes -= 1;
                world.hosts[host].process = None;
                world.leader = world.leader.filter(|leader| *leader != host);
                world.hangs_up(host);
            }
            Action::CommitAnswerIsLost(host) => {
                world.faults.lost_answers -= 1;
                world.stage(host, Stage::Idle)?;
                world.hangs_up(host);
            }
            Action::LosesLead(_) => {
                world.faults.lost_answers -= 1;
                world.leader = None;
            }
            Action::VendorDeletes { user } => world.interfere(user, Pins::default()),
            Action::VendorReplaces { user } => world.interfere(user, Pins::of_vendor(user)),
            Action::VendorMoves { user } => {
                world.faults.interferences -= 1;
                world.moved[user] = true;
            }
            Action::OperatorReleases { host, user } => {
                world.faults.releases -= 1;
                world.unexplained[user] -= 1;
                world.hosts[host].held[user] = false;
            }
            Action::OperatorRetries { host, issuance } => {
                world.faults.retries -= 1;
                world.moves(host, issuance, Event::Retried);
            }
        }
        Some(())
    }

    /// The end of a planned batch, all of it in one transaction of the journal.
    fn settle(&self, world: &mut World, host: usize, landed: &[bool]) {
        for (place, landed) in landed.iter().enumerate() {
            let issuance = world.hosts[host].journal[place].clone();
            if issuance.state != State::Planned {
                continue;
            }
            world.moved[issuance.user] = false;
            match (landed, issuance.step) {
                (false, step) => {
                    world.unexplained[issuance.user] -= i8::from(matches!(step, Step::Issue { .. }));
                    world.moves(host, place, Event::Refused);
                }
                (true, Step::Issue { .. }) => {
                    world.hosts[host].journal[place].fresh = true;
                    world.moves(host, place, Event::Committed);
                }
                (true, Step::TakeBack { of, .. }) => {
                    world.moves(host, place, Event::CommittedSilently);
                    world.moves(host, of, Event::TakenBack);
                    world.hosts[host].held[issuance.user] = !self.has(Mistake::TakesBackWithoutHold);
                }
            }
        }
        // What never was leaves no trace, and the model fewer states.
        world.hosts[host].journal.retain(|i| i.state != State::Abandoned);
    }

    /// From the journal into the hand, with a look into the database if its time is over.
    fn take(&self, world: &mut World, host: usize, place: usize) -> Option<()> {
        let Issuance { user, fresh, .. } = world.hosts[host].journal[place];
        let pin = world.hosts[host].journal[place].pin()?;
        let hand = if fresh {
            Hand::Ready { sure: true }
        } else if self.has(Mistake::NeverLooksAgain) {
            Hand::Ready { sure: false }
        } else if world.stored[user].has(pin) {
            Hand::Ready { sure: true }
        } else {
            Hand::Told(Answer::Gone)
        };
        if self.has(Mistake::MarksBeforeTheAnswer) && matches!(hand, Hand::Ready { .. }) {
            world.moves(host, place, Event::Accepted);
        }
        world.hosts[host].process.as_mut()?.hands.insert(place, hand);
        Some(())
    }

    fn mail(&self, world: &mut World, host: usize, place: usize, reply: Reply) -> Option<()> {
        let user = world.hosts[host].journal[place].user;
        let issued = world.hosts[host].journal[place].pin()?;
        let standing = world.stored[user];
        let hand = world.hosts[host].process.as_ref()?.hands.get(&place).copied()?;
        if matches!(reply, Reply::Accepted | Reply::AcceptedUnheard) {
            let told = match standing.valid().first() {
                Some(pin) if self.has(Mistake::TellsWhatStandsNow) => pin,
                _ => issued,
            };
            let sure = hand == Hand::Ready { sure: true };
            if !world.once_committed[user].has(told) || (!sure && !standing.has(told)) {
                world.broken = Some(Broken::MailOfNothing);
            }
            let before = world.hosts[host].journal[place].told.replace(told);
            if before.is_some_and(|before| before != told) {
                world.broken = Some(Broken::AnotherPin);
            }
            world.last_mail[user] = Some(told);
        }
        let answer = match reply {
            Reply::Accepted => Answer::Accepted,
            Reply::AcceptedUnheard | Reply::Later => Answer::Deferred,
            Reply::No => Answer::Rejected,
        };
        let hands = &mut world.hosts[host].process.as_mut()?.hands;
        if self.has(Mistake::MarksBeforeTheAnswer) {
            hands.remove(&place);
        } else {
            hands.insert(place, Hand::Told(answer));
        }
        Some(())
    }

    fn minute(&self, world: &mut World) {
        for host in &mut world.hosts {
            host.journal.iter_mut().for_each(|i| i.fresh = false);
            let Some(process) = &mut host.process else { continue };
            if self.has(Mistake::SendsWhatLayTooLong) {
                let ready = process.hands.values_mut().filter(|hand| matches!(hand, Hand::Ready { .. }));
                ready.for_each(|hand| *hand = Hand::Ready { sure: false });
            } else {
                process.hands.retain(|_, hand| !matches!(hand, Hand::Ready { .. })); // back to the journal
            }
        }
    }
}

impl Step {
    /// Whether the rows that it names are still there.
    fn hits(self, stands: Pins) -> bool {
        match self {
            Step::Issue { before, .. } => before.without(stands).is_empty(),
            Step::TakeBack { pin, .. } => stands.has(pin),
        }
    }
}

impl World {
    fn stage(&mut self, host: usize, stage: Stage) -> Option<()> {
        self.hosts[host].process.as_mut()?.stage = stage;
        Some(())
    }

    fn answer(&mut self, host: usize, yes: bool) -> Option<()> {
        let Stage::Sent { answer, .. } = &mut self.hosts[host].process.as_mut()?.stage else { return None };
        *answer = Some(yes);
        Some(())
    }

    fn roll_back(&mut self, host: usize) -> Option<()> {
        self.transaction = None;
        self.stage(host, Stage::Idle)
    }

    fn hangs_up(&mut self, host: usize) {
        if let Some(transaction) = self.transaction.as_mut().filter(|t| t.host == host) {
            transaction.connected = false;
        }
    }

    fn note_planned(&mut self, host: usize, written: [Option<Step>; USERS]) {
        for (user, step) in written.into_iter().enumerate() {
            let Some(step) = step else { continue };
            if let Step::Issue { pin, .. } = step {
                self.drawn = self.drawn.with(Pins::one(pin));
                self.unexplained[user] += 1;
            }
            self.hosts[host].journal.push(Issuance { user, step, state: State::Planned, fresh: false, told: None });
        }
    }

    /// The one way for an issuance to get on.
    fn moves(&mut self, host: usize, place: usize, event: Event) {
        let issuance = &mut self.hosts[host].journal[place];
        match next(issuance.state, event) {
            Ok(state) => {
                issuance.state = state;
                issuance.fresh &= state == State::Committed;
            }
            Err(_) => self.broken = Some(Broken::NotInTheTable),
        }
    }

    fn land(&mut self) -> Option<()> {
        let transaction = self.transaction.take()?;
        for (user, step) in transaction.written.into_iter().enumerate() {
            let Some(step) = step else { continue };
            self.stored[user] = step.applied_to(self.stored[user]);
            self.moved[user] = false;
            if let Step::Issue { pin, .. } = step {
                self.once_committed[user] = self.once_committed[user].with(Pins::one(pin));
            }
        }
        if transaction.connected {
            self.answer(transaction.host, true)?;
        }
        Some(())
    }

    fn interfere(&mut self, user: usize, gives: Pins) {
        self.faults.interferences -= 1;
        self.interfered[user] = true;
        self.unexplained[user] -= i8::from(gives.is_empty() && !self.stored[user].valid().is_empty());
        self.stored[user] = gives;
    }
}
