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
    /// Ends of channels.
    pub(super) ports: Vec<usize>,
    /// Bytes and mark of each.
    pub(super) buffers: Vec<(usize, u8)>,
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
    /// What it has posted and the other one has not received.
    said: VecDeque<Said>,
    /// The port was closed, or went with the message that it was in.
    is_gone: bool,
    /// It went so: that is noticed by whoever waits, and by others within a millisecond.
    is_lost: bool,
    /// This program has shut it down, and still has the handle.
    is_shut: bool,
}

/// A handle of a port.
pub(super) struct Port {
    id: u64,
    end: usize,
    pub(super) state: State,
    pub(super) held: usize,
    pub(super) loan: Option<(CLoan, u8)>,
    /// It has reported its end.
    pub(super) ended: bool,
    insertion: usize,
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

fn pick(number: u8, count: usize) -> Option<usize> {
    usize::from(number).checked_rem(count)
}

impl Model {
    pub(super) fn open(&mut self, ids: [u64; 2], is_trusted: bool) {
        for id in ids {
            let end = self.ends.len();
            self.ends.push(End { is_trusted, ..End::default() });
            self.add(id, end);
        }
    }

    fn add(&mut self, id: u64, end: usize) {
        let (state, held, loan, ended) = (State::Live, 0, None, false);
        self.ports.push(Port { id, end, state, held, loan, ended, insertion: 0 });
    }

    /// Any port: there is one from the beginning.
    pub(super) fn port(&self, number: u8) -> usize {
        pick(number, self.ports.len()).unwrap()
    }

    /// Any port, mostly one for which something waits.
    pub(super) fn reader(&self, number: u8) -> usize {
        let waits = |port: &usize| self.gone(*port).is_none() && !self.is_read(*port);
        let those: Vec<_> = (0..self.ports.len()).filter(waits).collect();
        let some = pick(number, those.len()).filter(|_| !number.is_multiple_of(8));
        some.map_or_else(|| self.port(number), |at| those[at])
    }

    /// Any message, mostly one that is held.
    pub(super) fn message(&self, number: u8) -> Option<usize> {
        let held = (0..self.messages.len()).filter(|at| self.messages[*at].is_held);
        let those: Vec<_> = held.collect();
        let some = pick(number, those.len()).filter(|_| !number.is_multiple_of(8));
        some.map(|at| those[at]).or_else(|| pick(number, self.messages.len()))
    }

    pub(super) fn buffer(&self, number: u8) -> Option<usize> {
        pick(number, self.buffers.len())
    }

    pub(super) fn gathering(&self, number: u8) -> Option<usize> {
        pick(number, self.gatherings.len())
    }

    /// What is listed: buffers and ports, whatever became of them.
    pub(super) fn items(&self, items: &[Option<(bool, u8)>]) -> Vec<(Kind, usize)> {
        let mut list = Vec::new();
        for (is_port, number) in items.iter().flatten() {
            match self.buffer(*number) {
                Some(buffer) if !is_port => list.push((Kind::Buffer, buffer)),
                _ => list.push((Kind::Port, self.port(*number))),
            }
        }
        list
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

    pub(super) fn is_lent(&self, port: usize) -> bool {
        self.ports[port].held > 0 || self.ports[port].loan.is_some()
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
            let waiting = self.ends[next ^ 1].said.iter().flat_map(|said| &said.ports);
            let new: Vec<_> = waiting.filter(|end| !found.contains(end)).copied().collect();
            found.extend(new);
            looked += 1;
        }
        found.contains(&end)
    }

    /// Whether all that was posted to it was received.
    pub(super) fn is_read(&self, port: usize) -> bool {
        self.ends[self.end_of(port) ^ 1].said.is_empty()
    }

    /// Messages that wait at the other end.
    pub(super) fn waiting(&self, port: usize) -> usize {
        self.ends[self.end_of(port)].said.len()
    }

    /// Whether the item may be to blame in this way.
    pub(super) fn may_refuse(
        &self,
        carrier: usize,
        items: &[(Kind, usize)],
        index: usize,
        status: Status,
    ) -> bool {
        let (kind, at) = items[index];
        let state = match kind {
            Kind::Port => self.ports[at].state,
            Kind::Buffer => self.buffers[at].4,
        };
        if let Some(expected) = state.refusal() {
            return status == expected;
        }
        if status == Status::Duplicate {
            return items[..index].contains(&items[index]);
        }
        if kind == Kind::Buffer {
            return false;
        }
        match status {
            Status::Carrier => at == carrier,
            Status::OtherEnd => self.end_of(at) ^ 1 == self.end_of(carrier),
            Status::Ended => self.may_be_over(at),
            Status::Trusted => self.is_trusted(at) && !self.is_trusted(carrier),
            Status::Borrowed => self.ports[at].held > 0,
            Status::Loaned => self.ports[at].loan.is_some(),
            Status::Member => matches!(state, State::In(_)),
            _ => false,
        }
    }

    pub(super) fn say(&mut self, port: usize, said: Said) {
        let end = self.end_of(port);
        self.ends[end].said.push_back(said);
    }

    /// Spends what was listed.
    pub(super) fn give(&mut self, items: &[(Kind, usize)], mut said: Said) -> Said {
        for &(kind, at) in items {
            match kind {
                Kind::Port => {
                    assert!(
                        self.gone(at).is_none() && !self.is_lent(at),
                        "nobody could give it away"
                    );
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
    pub(super) fn expect_next(&mut self, port: usize, message: &CMessage, bytes: &[u8]) {
        let end = self.end_of(port);
        assert!(!self.ends[end].is_shut, "it was shut down");
        let said = self.ends[end ^ 1].said.pop_front().expect("nothing was posted");
        assert_eq!((bytes.len(), message.tag), (said.len, said.tag));
        assert!(bytes.iter().all(|byte| *byte == said.mark));
        assert_eq!(message.port_count as usize, said.ports.len());
        assert_eq!(message.buffer_count as usize, said.buffers.len());
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
            self.add(port.id, end);
        }
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
        self.lose_end(self.end_of(port));
    }

    /// The port has come back by another handle.
    pub(super) fn come_back(&mut self, port: usize, id: u64) {
        assert!(!self.is_lent(port));
        self.ports[port].state = State::Given;
        self.add(id, self.end_of(port));
    }

    pub(super) fn gather(&mut self, id: u64, is_loop: bool) {
        self.gatherings.push(Gathering { id, is_loop, is_alive: true });
    }

    pub(super) fn join(&mut self, gathering: usize, port: usize) {
        self.ports[port].state = State::In(gathering);
        self.ports[port].insertion = self.insertions.len();
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
        self.ports.iter().position(|port| port.end == end && port.state == State::Live)
    }
}
