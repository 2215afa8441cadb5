//! What is known of all handles and channels.

use std::collections::VecDeque;

use zeroport_ffi::*;

/// What became of a handle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum State {
    Live,
    /// A member of the gathering with this number.
    In(usize),
    Freed,
    Given,
}

impl State {
    /// What a call on it says, if it leads nowhere.
    pub(super) fn refusal(self) -> Option<Status> {
        match self {
            Self::Live | Self::In(_) => None,
            Self::Freed => Some(Status::Freed),
            Self::Given => Some(Status::Transferred),
        }
    }
}

/// Numbers from here on name any handle there ever was; lower ones, one with which something can be done, if there is one.
pub(super) const ANY: u8 = 224;

/// What a handle of a port does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Part {
    Whole,
    Sends,
    Receives,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Port,
    Buffer,
}

/// A message that was posted: so many bytes, each of which is the mark.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) len: usize,
    pub(super) mark: u8,
    pub(super) tag: u32,
    /// Bytes of its name, if it has one.
    pub(super) name_len: Option<usize>,
    pub(super) is_request: bool,
    /// Ends of channels.
    pub(super) ports: Vec<usize>,
    /// Bytes and mark of each.
    pub(super) buffers: Vec<(usize, u8)>,
}

/// What was received.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) tag: u32,
    pub(super) name_len: Option<usize>,
    pub(super) is_request: bool,
    pub(super) ports: usize,
    pub(super) buffers: usize,
}

impl Said {
    pub(super) fn bytes(len: usize, mark: u8) -> Self {
        Self { len, mark, ..Self::default() }
    }
}

/// One end of a channel; the other one is beside it.
#[derive(Default)]
struct End {
    is_trusted: bool,
    /// Little may wait.
    is_small: bool,
    /// What it has posted and the other one has not received.
    said: VecDeque<Said>,
    /// The port was closed, or went with the message that it was in.
    is_gone: bool,
    /// It went so: that is noticed by whoever waits, and by others within a millisecond.
    is_lost: bool,
    /// This program has shut it down, and still has the handle.
    is_shut: bool,
    /// It has told that the channel has ended.
    has_told: bool,
}

/// A handle of a port.
pub(super) struct Port {
    id: u64,
    end: usize,
    part: Part,
    pub(super) state: State,
    pub(super) held: usize,
    pub(super) loan: Option<(CLoan, u8)>,
    /// One that was published or cancelled.
    pub(super) old_loan: Option<CLoan>,
    insertion: usize,
    /// As a member it tells only its end.
    is_paused: bool,
}

pub(super) struct Held {
    pub(super) message: CMessage,
    pub(super) said: Said,
    port: usize,
    /// The set that has received it.
    pub(super) by: Option<usize>,
    pub(super) is_held: bool,
}

pub(super) struct Gathering {
    pub(super) id: u64,
    pub(super) is_loop: bool,
    pub(super) is_alive: bool,
    /// The next run ends at once.
    pub(super) is_stopped: bool,
}

#[derive(Default)]
pub(super) struct Model {
    ends: Vec<End>,
    pub(super) ports: Vec<Port>,
    pub(super) messages: Vec<Held>,
    /// Handle, bytes, mark, whether it is sealed, and what became of it.
    pub(super) buffers: Vec<(u64, usize, u8, bool, State)>,
    pub(super) gatherings: Vec<Gathering>,
    /// Whether it was into a loop, and how often its end was told.
    pub(super) insertions: Vec<(bool, usize)>,
    /// The message that is looked at.
    current: Option<Said>,
}

/// One of so many, mostly a fit one.
fn pick(number: u8, count: usize, is_fit: impl Fn(usize) -> bool) -> Option<usize> {
    if let Some(number) = number.checked_sub(ANY) {
        return usize::from(number).checked_rem(count);
    }
    let fit: Vec<_> = (0..count).filter(|at| is_fit(*at)).collect();
    let chosen = usize::from(number).checked_rem(fit.len());
    chosen.map(|at| fit[at]).or_else(|| usize::from(number).checked_rem(count))
}

impl Model {
    pub(super) fn open(&mut self, ids: [u64; 2], is_trusted: bool, is_small: bool) {
        for id in ids {
            let end = self.ends.len();
            self.ends.push(End { is_trusted, is_small, ..End::default() });
            self.add(id, end, Part::Whole);
        }
    }

    fn add(&mut self, id: u64, end: usize, part: Part) {
        self.ports.push(Port {
            id,
            end,
            part,
            state: State::Live,
            held: 0,
            loan: None,
            old_loan: None,
            insertion: 0,
            is_paused: false,
        });
    }

    /// A port: there is one from the beginning. Mostly one that is there.
    pub(super) fn port(&self, number: u8) -> usize {
        pick(number, self.ports.len(), |port| self.gone(port).is_none()).unwrap()
    }

    /// A port, mostly one for which something waits.
    pub(super) fn reader(&self, number: u8) -> usize {
        let waits = |port| self.gone(port).is_none() && !self.is_read(port);
        pick(number, self.ports.len(), waits).unwrap()
    }

    /// A port, mostly one on which room is reserved.
    pub(super) fn borrower(&self, number: u8) -> usize {
        pick(number, self.ports.len(), |port| self.ports[port].loan.is_some()).unwrap()
    }

    /// A port, mostly the half that does this.
    pub(super) fn half(&self, number: u8, part: Part) -> usize {
        let is_it = |port| self.gone(port).is_none() && self.part(port) == part;
        pick(number, self.ports.len(), is_it).unwrap()
    }

    /// A message, mostly one that is held.
    pub(super) fn message(&self, number: u8) -> Option<usize> {
        pick(number, self.messages.len(), |at| self.messages[at].is_held)
    }

    pub(super) fn buffer(&self, number: u8) -> Option<usize> {
        pick(number, self.buffers.len(), |at| self.buffers[at].4 == State::Live)
    }

    pub(super) fn gathering(&self, number: u8) -> Option<usize> {
        pick(number, self.gatherings.len(), |at| self.gatherings[at].is_alive)
    }

    /// What is listed, by numbers up to 15: 0 is nothing, up to 9 are ports that are there, up to 13 such buffers, 14 is the
    /// last port and 15 the last buffer of those that are gone.
    pub(super) fn items(&self, numbers: &[u8]) -> Vec<(Kind, usize)> {
        let gone_port = || (0..self.ports.len()).rfind(|port| self.gone(*port).is_some());
        let gone_buffer = || (0..self.buffers.len()).rfind(|at| self.buffers[*at].4 != State::Live);
        let item = |number: &u8| match number {
            0 => None,
            1..10 => Some((Kind::Port, self.port(number - 1))),
            10..14 => self.buffer(number - 10).map(|at| (Kind::Buffer, at)),
            14 => gone_port().map(|at| (Kind::Port, at)),
            _ => gone_buffer().map(|at| (Kind::Buffer, at)),
        };
        numbers.iter().filter_map(item).collect()
    }

    pub(super) fn ids(&self, items: &[(Kind, usize)]) -> Vec<CItem> {
        let id = |&(kind, at): &(Kind, usize)| match kind {
            Kind::Port => self.ports[at].id,
            Kind::Buffer => self.buffers[at].0,
        };
        items.iter().map(|item| CItem { id: id(item) }).collect()
    }

    pub(super) fn handle(&self, port: usize) -> CPort {
        CPort { id: self.ports[port].id }
    }

    /// What a call on this port says, if its handle leads nowhere.
    pub(super) fn gone(&self, port: usize) -> Option<Status> {
        self.ports[port].state.refusal()
    }

    pub(super) fn part(&self, port: usize) -> Part {
        self.ports[port].part
    }

    /// Why nothing can be posted on this port, whatever its channel is like.
    pub(super) fn refuses_to_post(&self, port: usize) -> Option<Status> {
        let is_half = || (self.part(port) == Part::Receives).then_some(Status::Half);
        self.gone(port).or_else(is_half)
    }

    /// Why nothing can be received on this port.
    pub(super) fn refuses_to_receive(&self, port: usize) -> Option<Status> {
        match (self.ports[port].state, self.part(port)) {
            (State::In(_), _) => Some(Status::Member),
            (State::Live, Part::Sends) => Some(Status::Half),
            (state, _) => state.refusal(),
        }
    }

    /// Why it cannot be given away, split or inserted.
    pub(super) fn refuses_to_leave(&self, port: usize) -> Option<Status> {
        match (self.ports[port].state, self.part(port)) {
            (State::In(_), _) => Some(Status::Member),
            (State::Live, Part::Sends | Part::Receives) => Some(Status::Half),
            (State::Live, Part::Whole) => self.borrows(port),
            (state, _) => state.refusal(),
        }
    }

    /// What is lent of it.
    pub(super) fn borrows(&self, port: usize) -> Option<Status> {
        match &self.ports[port] {
            Port { held: 1.., .. } => Some(Status::Borrowed),
            Port { loan: Some(_), .. } => Some(Status::Loaned),
            _ => None,
        }
    }

    pub(super) fn is_lent(&self, port: usize) -> bool {
        self.borrows(port).is_some()
    }

    /// Why a member cannot leave its set; what a handler is being told goes first.
    pub(super) fn refuses_to_go(&self, port: usize) -> Option<Status> {
        let set = self.set_of(port)?;
        let is_lent = self.has_held_of_ended(set) || self.ports[port].held > 0;
        is_lent.then_some(Status::Borrowed)
    }

    /// What a call on a message says that is not held.
    pub(super) fn gone_message(&self, message: usize) -> Status {
        let held = &self.messages[message];
        let of_port = || self.gone(held.port);
        held.by.map_or_else(of_port, |_| None).unwrap_or(Status::Freed)
    }

    /// Whether a short message cannot be refused for want of room.
    pub(super) fn is_empty(&self, port: usize) -> bool {
        let other = self.end_of(port) ^ 1;
        let is_of = |held: &Held| held.is_held && self.end_of(held.port) == other;
        self.waiting(port) == 0 && !self.messages.iter().any(is_of)
    }

    /// A handle on which can be posted to this port.
    pub(super) fn poster_to(&self, port: usize) -> Option<usize> {
        let other = self.end_of(port) ^ 1;
        let can = |at: &usize| self.end_of(*at) == other && self.refuses_to_post(*at).is_none();
        (0..self.ports.len()).find(can).filter(|at| !self.is_lent(*at))
    }

    pub(super) fn is_small(&self, port: usize) -> bool {
        self.ends[self.end_of(port)].is_small
    }

    pub(super) fn is_shut(&self, port: usize) -> bool {
        self.ends[self.end_of(port)].is_shut
    }

    /// The set or loop that it is in.
    pub(super) fn set_of(&self, port: usize) -> Option<usize> {
        match self.ports[port].state {
            State::In(gathering) => Some(gathering),
            _ => None,
        }
    }

    fn end_of(&self, port: usize) -> usize {
        self.ports[port].end
    }

    pub(super) fn is_trusted(&self, port: usize) -> bool {
        self.ends[self.end_of(port)].is_trusted
    }

    /// Whether the channel has ended, and every call knows.
    pub(super) fn is_known_to_be_over(&self, port: usize) -> bool {
        let end = self.end_of(port);
        self.ends[end].is_shut || self.ends[end ^ 1].is_gone && !self.ends[end ^ 1].is_lost
    }

    /// Whether the channel has ended.
    pub(super) fn is_over(&self, port: usize) -> bool {
        let end = self.end_of(port);
        self.ends[end].is_shut || self.ends[end ^ 1].is_gone
    }

    /// Whether the channel may have ended: its other end has, or lies in a message that nobody can ever receive, in the
    /// port to which that was posted, say. The kernel finds that out when it likes.
    pub(super) fn may_be_over(&self, port: usize) -> bool {
        self.is_over(port) || !self.can_be_had(self.end_of(port) ^ 1)
    }

    /// Whether this program has an end, or can receive it.
    fn can_be_had(&self, end: usize) -> bool {
        let is_here = |port: &&Port| port.state.refusal().is_none();
        let mut found: Vec<_> = self.ports.iter().filter(is_here).map(|port| port.end).collect();
        found.extend(self.messages.iter().flat_map(|held| &held.said.ports));
        let mut looked = 0;
        while let Some(&next) = found.get(looked) {
            looked += 1;
            if self.is_deaf(next) {
                continue;
            }
            let waiting = self.ends[next ^ 1].said.iter().flat_map(|said| &said.ports);
            let new: Vec<_> = waiting.filter(|end| !found.contains(end)).copied().collect();
            found.extend(new);
        }
        found.contains(&end)
    }

    /// Whether its half that receives was given up.
    fn is_deaf(&self, end: usize) -> bool {
        let is_of = |port: &&Port| port.end == end && port.state.refusal().is_none();
        let mut parts = self.ports.iter().filter(is_of).map(|port| port.part).peekable();
        parts.peek().is_some() && parts.all(|part| part == Part::Sends)
    }

    /// Whether all that was posted to it was received.
    pub(super) fn is_read(&self, port: usize) -> bool {
        self.ends[self.end_of(port) ^ 1].said.is_empty()
    }

    /// Messages that wait for this port.
    pub(super) fn waiting_for(&self, port: usize) -> usize {
        self.ends[self.end_of(port) ^ 1].said.len()
    }

    /// Messages that wait at the other end.
    pub(super) fn waiting(&self, port: usize) -> usize {
        self.ends[self.end_of(port)].said.len()
    }

    /// What of a list is refused before anything is tried, and why.
    pub(super) fn blame(&self, carrier: usize, items: &[(Kind, usize)]) -> Option<(usize, Status)> {
        let gone = |&(kind, at): &(Kind, usize)| match kind {
            Kind::Port => self.gone(at),
            Kind::Buffer => self.buffers[at].4.refusal(),
        };
        let first = |index: usize| match &items[index] {
            (Kind::Port, at) if *at == carrier => Some(Status::Carrier),
            item if items[..index].contains(item) => gone(item).or(Some(Status::Duplicate)),
            item => gone(item),
        };
        let then = |index: usize| match items[index] {
            (Kind::Port, at) => self.refuses_to_leave(at),
            (Kind::Buffer, _) => None,
        };
        let find = |refuses: &dyn Fn(usize) -> Option<Status>| {
            (0..items.len()).find_map(|index| Some((index, refuses(index)?)))
        };
        find(&first).or_else(|| find(&then))
    }

    /// Whether the item may be to blame in this way, when all of them were tried.
    pub(super) fn may_refuse(&self, carrier: usize, item: (Kind, usize), status: Status) -> bool {
        let (Kind::Port, at) = item else { return false };
        match status {
            Status::OtherEnd => self.is_other_end(at, carrier),
            Status::Ended => self.may_be_over(at),
            Status::Trusted => self.is_trusted(at) && !self.is_trusted(carrier),
            _ => false,
        }
    }

    fn is_other_end(&self, port: usize, carrier: usize) -> bool {
        self.end_of(port) ^ 1 == self.end_of(carrier)
    }

    /// Whether a post that lists this port cannot be right.
    fn must_refuse(&self, carrier: usize, at: usize) -> bool {
        let End { is_shut, has_told, .. } = self.ends[self.end_of(at)];
        let is_secret = self.is_trusted(at) && !self.is_trusted(carrier);
        is_shut || has_told || is_secret || self.is_other_end(at, carrier)
    }

    pub(super) fn say(&mut self, port: usize, said: Said) {
        let end = self.end_of(port);
        self.ends[end].said.push_back(said);
    }

    /// Spends what was listed.
    pub(super) fn give(&mut self, carrier: usize, items: &[(Kind, usize)], mut said: Said) -> Said {
        for &(kind, at) in items {
            match kind {
                Kind::Port => {
                    assert!(!self.must_refuse(carrier, at), "nobody could give it away");
                    self.ports[at].state = State::Given;
                    said.ports.push(self.end_of(at));
                }
                Kind::Buffer => {
                    let (_, len, mark, _, state) = &mut self.buffers[at];
                    assert_eq!(*state, State::Live);
                    *state = State::Given;
                    said.buffers.push((*len, *mark));
                }
            }
        }
        said
    }

    /// The message is the next one to this port.
    pub(super) fn expect_next(&mut self, port: usize, content: &Content) {
        let end = self.end_of(port);
        assert!(!self.ends[end].is_shut, "it was shut down");
        let said = self.ends[end ^ 1].said.pop_front().expect("nothing was posted");
        assert_eq!((content.bytes.len(), content.tag), (said.len, said.tag));
        assert!(content.bytes.iter().all(|byte| *byte == said.mark));
        assert_eq!((content.ports, content.buffers), (said.ports.len(), said.buffers.len()));
        assert_eq!((content.name_len, content.is_request), (said.name_len, said.is_request));
        self.current = Some(said);
    }

    /// All was received, and the channel has ended; or this program has shut the port down.
    pub(super) fn expect_end(&self, port: usize, status: Status) {
        assert!([Status::Closed, Status::Lost].contains(&status), "{status:?}");
        assert!(self.may_be_over(port), "it is open");
        assert!(self.ends[self.end_of(port)].is_shut || self.is_read(port), "not all was received");
    }

    /// The message that was looked at is held.
    pub(super) fn hold(&mut self, port: usize, message: CMessage) {
        let said = self.current.take().unwrap();
        let by = self.set_of(port);
        self.ports[port].held += 1;
        self.messages.push(Held { message, said, port, by, is_held: true });
    }

    /// The message that was looked at is released.
    pub(super) fn drop_current(&mut self) {
        let said = self.current.take().unwrap();
        self.lose(said);
    }

    pub(super) fn release(&mut self, message: usize) {
        let held = &mut self.messages[message];
        held.is_held = false;
        self.ports[held.port].held -= 1;
        let said = std::mem::take(&mut held.said);
        self.lose(said);
    }

    /// A message goes with all that is in it.
    fn lose(&mut self, said: Said) {
        for end in said.ports {
            self.ends[end].is_lost = !self.ends[end].is_gone;
            self.lose_end(end);
        }
    }

    fn lose_end(&mut self, end: usize) {
        self.ends[end].is_gone = true;
        let unread = std::mem::take(&mut self.ends[end ^ 1].said);
        unread.into_iter().for_each(|said| self.lose(said));
    }

    pub(super) fn take_ports(&mut self, message: usize, ports: &[CPort]) {
        let ends = std::mem::take(&mut self.messages[message].said.ports);
        for (port, end) in ports.iter().zip(ends) {
            self.add(port.id, end, Part::Whole);
        }
    }

    /// A request was posted: its replies come on this port. Gives the end that goes with it.
    pub(super) fn open_replies(&mut self, carrier: usize, id: u64) -> usize {
        let (end, is_trusted) = (self.ends.len(), self.is_trusted(carrier));
        self.ends.extend([0; 2].map(|_| End { is_trusted, ..End::default() }));
        self.add(id, end, Part::Whole);
        end + 1
    }

    pub(super) fn split(&mut self, port: usize, [sender, receiver]: [CPort; 2]) {
        let end = self.end_of(port);
        self.ports[port].state = State::Freed;
        self.add(sender.id, end, Part::Sends);
        self.add(receiver.id, end, Part::Receives);
    }

    /// Why two handles do not make one port.
    pub(super) fn refuses_to_join(&self, sender: usize, receiver: usize) -> Option<Status> {
        if let Some(status) = self.gone(sender) {
            return Some(status);
        }
        if sender == receiver {
            return Some(Status::Half);
        }
        // What a member has received is its set's.
        let borrows = |port| self.borrows(port).filter(|_| self.set_of(port).is_none());
        let lent = self.gone(receiver).or(borrows(sender)).or(borrows(receiver));
        lent.or_else(|| match [sender, receiver].map(|port| self.part(port)) {
            [Part::Sends, Part::Receives] => {
                (self.end_of(sender) != self.end_of(receiver)).then_some(Status::Stranger)
            }
            _ => Some(Status::Half),
        })
    }

    pub(super) fn join_halves(&mut self, halves: [usize; 2], id: u64) {
        halves.into_iter().for_each(|half| self.ports[half].state = State::Freed);
        self.add(id, self.end_of(halves[0]), Part::Whole);
    }

    /// The port has told that its channel has ended.
    pub(super) fn note_end(&mut self, port: usize) {
        let end = self.end_of(port);
        self.ends[end].has_told = true;
    }

    pub(super) fn shut_down(&mut self, port: usize) {
        let end = self.end_of(port);
        self.ends[end].is_shut = true;
        self.lose_end(end);
    }

    /// The handle is spent, and the port closed.
    pub(super) fn close(&mut self, port: usize) {
        assert!(self.gone(port).is_none());
        self.ports[port].state = State::Freed;
        let end = self.end_of(port);
        // Half a port is not the port.
        if !self.ports.iter().any(|port| port.end == end && port.state == State::Live) {
            self.lose_end(end);
        }
    }

    /// The port has come back by another handle.
    pub(super) fn come_back(&mut self, port: usize, id: u64) {
        assert!(!self.is_lent(port));
        self.ports[port].state = State::Given;
        self.add(id, self.end_of(port), Part::Whole);
    }

    pub(super) fn gather(&mut self, id: u64, is_loop: bool) {
        self.gatherings.push(Gathering { id, is_loop, is_alive: true, is_stopped: false });
    }

    pub(super) fn join(&mut self, gathering: usize, port: usize) {
        self.ports[port].state = State::In(gathering);
        self.ports[port].insertion = self.insertions.len();
        self.ports[port].is_paused = false;
        self.insertions.push((self.gatherings[gathering].is_loop, 0));
    }

    pub(super) fn leave(&mut self, port: usize) {
        self.ports[port].state = State::Live;
    }

    pub(super) fn insertion(&self, port: usize) -> usize {
        self.ports[port].insertion
    }

    /// The member of a set or loop with this handle.
    pub(super) fn live_member(&self, id: u64) -> usize {
        let is_it = |port: &Port| port.id == id && matches!(port.state, State::In(_));
        self.ports.iter().position(is_it).expect("a member")
    }

    /// Nothing more comes of a member. One that was shut down goes without another word.
    pub(super) fn note_removal(&mut self, insertion: usize) {
        self.insertions[insertion].1 += 1;
        let is_it = |port: &Port| port.insertion == insertion && matches!(port.state, State::In(_));
        if let Some(port) = self.ports.iter().position(is_it) {
            assert!(self.ends[self.end_of(port)].is_shut, "it is a member");
            self.close(port);
        }
    }

    /// Each `removed` has come once, when its member was gone, and not before.
    pub(super) fn expect_removals(&self) {
        let is_in = |at| {
            let is_it = |port: &Port| port.insertion == at && matches!(port.state, State::In(_));
            self.ports.iter().any(is_it)
        };
        for (at, (is_loop, removals)) in self.insertions.iter().enumerate() {
            assert_eq!(*removals, usize::from(*is_loop && !is_in(at)), "insertion {at}");
        }
    }

    pub(super) fn set_paused(&mut self, port: usize, is_paused: bool) {
        self.ports[port].is_paused = is_paused;
    }

    /// Whether a wait must tell something.
    pub(super) fn has_news(&self, gathering: usize) -> bool {
        let is_in = |port: usize| self.ports[port].state == State::In(gathering);
        let tells = |port: usize| {
            let waits = !self.is_read(port) && !self.ports[port].is_paused;
            waits || self.is_read(port) && self.is_known_to_be_over(port)
        };
        (0..self.ports.len()).any(|port| is_in(port) && tells(port))
    }

    /// Whether messages are held of a port that has left the set with its end.
    pub(super) fn has_held_of_ended(&self, gathering: usize) -> bool {
        let is_in = |port: usize| self.ports[port].state == State::In(gathering);
        let is_it = |held: &Held| held.is_held && held.by == Some(gathering) && !is_in(held.port);
        self.messages.iter().any(is_it)
    }

    pub(super) fn close_gathering(&mut self, gathering: usize) {
        self.gatherings[gathering].is_alive = false;
        for port in 0..self.ports.len() {
            if self.ports[port].state == State::In(gathering) {
                assert_eq!(self.ports[port].held, 0);
                self.close(port);
            }
        }
    }

    /// Whether this is any handle that is alive.
    pub(super) fn knows(&self, id: u64) -> bool {
        let ports =
            self.ports.iter().filter(|port| port.state.refusal().is_none()).map(|port| port.id);
        let buffers =
            self.buffers.iter().filter(|buffer| buffer.4 == State::Live).map(|buffer| buffer.0);
        let gatherings = self.gatherings.iter().filter(|it| it.is_alive).map(|it| it.id);
        ports.chain(buffers).chain(gatherings).any(|known| known == id)
    }

    /// The other end of a channel, if this program has it.
    pub(super) fn peer(&self, port: usize) -> Option<usize> {
        let end = self.end_of(port) ^ 1;
        let receives = |port: &Port| port.state == State::Live && port.part != Part::Sends;
        self.ports.iter().position(|port| port.end == end && receives(port))
    }
}
