//! Short sequences of calls, each about one thing that the library must get right. They are kept beside what the fuzzer
//! has found, which begins with them.

use super::model::ANY;
use super::step::Kind::{self, *};
use super::step::bytes;

type Calls = &'static [[u8; 4]];

/// Each with its name in the corpus.
pub const STORIES: &[(&str, Calls)] = &[
    ("batches", BATCHES),
    ("busy", BUSY),
    ("ended_member", ENDED_MEMBER),
    ("fresh_lane", FRESH_LANE),
    ("full", FULL),
    ("halves", HALVES),
    ("handlers", HANDLERS),
    ("lists", LISTS),
    ("loans", LOANS),
    ("lost", LOST),
    ("made_up", MADE_UP),
    ("members", MEMBERS),
    ("names", NAMES),
    ("released_twice", RELEASED_TWICE),
    ("shut_half", SHUT_HALF),
    ("take_out", TAKE_OUT),
    ("travel", TRAVEL),
];

/// Ports, messages, buffers, sets and loops by the order in which they came: ports 0 and 1 are there.
const fn no(number: u8) -> u8 {
    ANY + number
}

const fn call(kind: Kind, a: u8) -> [u8; 4] {
    bytes(kind, a, 0, 0)
}

const fn calls(kind: Kind, a: u8, b: u8) -> [u8; 4] {
    bytes(kind, a, b, 0)
}

/// Posts 5 bytes with two of the items of `Model::items`.
const fn give(port: u8, first: u8, second: u8) -> [u8; 4] {
    bytes(PostWith, port, 5, first | second << 4)
}

/// As [`give`], with the other end of port 0 as the third item: so it is refused at last.
const fn give_in_vain(first: u8, second: u8) -> [u8; 4] {
    bytes(PostWith, no(0), 114, first | second << 4)
}

/// For `Run`: what the handler does.
const RELEASES: u8 = 1;
const CLOSES: u8 = 2;
const REMOVES: u8 = 3;
const PAUSES: u8 = 4;
const STOPS: u8 = 5;
const RUNS: u8 = 6;

/// Ports and buffers come out of a message once, if there are places for all of them.
const TAKE_OUT: Calls = &[
    call(Channel, 0),
    give(no(0), 3, 0),
    call(Receive, no(1)),
    calls(TakePorts, no(0), 0),
    calls(TakePorts, no(0), 1),
    calls(TakePorts, no(0), 1),
    calls(Post, no(4), 9),
    call(Receive, no(3)),
    calls(Buffer, 0, 1),
    calls(Buffer, 1, 2),
    give(no(0), 10, 11),
    call(Receive, no(1)),
    calls(TakeBuffers, no(2), 1),
    calls(TakeBuffers, no(2), 3),
    calls(TakeBuffers, no(2), 0),
    call(Release, no(2)),
    calls(TakeBuffers, no(2), 0),
];

/// What a port holds that has ended keeps its set from every change.
const ENDED_MEMBER: Calls = &[
    call(Gathering, 0),
    call(Channel, 0),
    call(Channel, 0),
    calls(Insert, no(1), no(0)),
    calls(Insert, no(4), no(0)),
    calls(Post, no(0), 5),
    call(Close, no(0)),
    calls(Wait, 3, no(0)),
    calls(Wait, 3, no(0)),
    calls(Wait, 3, no(0)),
    calls(Insert, no(2), no(0)),
    calls(Remove, no(4), no(0)),
    bytes(Signal, 0, no(0), 1),
    calls(CloseGathering, 0, no(0)),
    call(Close, no(4)),
    call(Release, no(0)),
    calls(Insert, no(2), no(0)),
    calls(Remove, no(4), no(0)),
    calls(Wait, 3, no(0)),
    bytes(Signal, 0, no(0), 1),
    calls(CloseGathering, 0, no(0)),
    calls(Wait, 3, no(0)),
    call(Close, no(2)),
];

/// A message that was released is another one than that which has come to its place.
const RELEASED_TWICE: Calls = &[
    calls(PostAll, no(0), 6),
    call(Receive, no(1)),
    call(Release, no(0)),
    call(Release, no(0)),
    call(Receive, no(1)),
    call(Release, no(0)),
    calls(TakePorts, no(0), 1),
    calls(TakeBuffers, no(0), 1),
    call(Open, no(0)),
    calls(Receive, no(1), 3),
    call(Release, no(3)),
    call(Release, no(3)),
    call(Receive, no(1)),
    call(Release, no(3)),
    call(Close, no(1)),
    call(Release, no(5)),
    call(Release, no(1)),
    call(Release, no(4)),
    call(Release, no(2)),
    call(Close, no(1)),
    call(Release, no(2)),
    call(Receive, no(1)),
    // Of a port that was given away.
    call(Channel, 0),
    call(Channel, 0),
    calls(Post, no(2), 7),
    call(Receive, no(3)),
    call(Release, no(6)),
    give(no(4), 2, 0),
    call(Release, no(6)),
    call(Open, no(6)),
];

/// A loan is spent once, and not by what is refused before it is tried.
const LOANS: Calls = &[
    calls(Loan, no(0), 10),
    call(Cancel, no(0)),
    calls(Loan, no(0), 9),
    call(Cancel, no(0)),
    calls(Loan, no(0), 9),
    calls(Loan, no(0), 9),
    calls(Post, no(0), 1),
    calls(PostAll, no(0), 2),
    call(Close, no(0)),
    call(Split, no(0)),
    call(Travel, no(0)),
    calls(Publish, no(0), 4),
    bytes(Publish, no(0), 1, 1),
    bytes(Publish, no(0), 1, 14),
    calls(Publish, no(0), 1),
    call(Receive, no(1)),
    calls(Loan, no(0), 9),
    bytes(Publish, no(0), 1, 2),
    calls(Loan, no(0), 240),
    call(Channel, 0),
    bytes(Publish, no(0), 1, 3),
    call(Receive, no(1)),
    calls(TakePorts, no(1), 4),
    call(Close, no(0)),
    calls(Loan, no(1), 9),
    calls(Loan, no(3), 9),
    call(Close, no(4)),
    calls(Publish, no(3), 1),
];

/// What is listed: at fault by its place, given away, or as it was.
const LISTS: Calls = &[
    call(Channel, 0),
    call(Channel, 0),
    give(no(0), 3, 3),
    give(no(0), 3, 1),
    give(no(0), 3, 2),
    give_in_vain(3, 5),
    calls(Post, no(2), 7),
    calls(Post, no(4), 8),
    calls(Receive, no(3), 3),
    calls(Receive, no(5), 3),
    call(Release, no(0)),
    call(Release, no(1)),
    calls(Buffer, 0, 1),
    calls(Buffer, 1, 2),
    give(no(0), 10, 10),
    give_in_vain(10, 11),
    give_in_vain(11, 3),
    call(CopyBuffer, no(0)),
    call(CopyBuffer, no(1)),
    // In use.
    calls(Post, no(3), 7),
    call(Receive, no(2)),
    give(no(0), 5, 3),
    call(ReleaseAll, 0),
    calls(Loan, no(2), 8),
    give(no(0), 5, 3),
    call(Cancel, no(2)),
    call(Gathering, 0),
    calls(Insert, no(2), no(0)),
    give(no(0), 5, 3),
    give(no(2), 5, 6),
    call(Receive, no(3)),
    calls(Wait, 3, no(0)),
    calls(Remove, no(2), no(0)),
    // Gone.
    give(no(0), 3, 10),
    give(no(0), 14, 0),
    give(no(0), 15, 0),
    calls(Post, no(2), 1),
    call(Close, no(2)),
    call(Shutdown, no(2)),
    call(Split, no(2)),
    call(CopyBuffer, no(0)),
    call(FreeBuffer, no(0)),
    call(Receive, no(1)),
    call(Close, no(3)),
    call(FreeBuffer, no(1)),
    give(no(0), 15, 0),
    call(Close, no(3)),
    calls(Post, no(3), 1),
    // Not to strangers, and not when it is over.
    call(Channel, 1),
    call(Channel, 0),
    give(no(6), 5, 0),
    give(no(6), 1, 0),
    call(Shutdown, no(8)),
    give(no(0), 5, 0),
    call(Close, no(9)),
];

/// A half does its part of what a port does.
const HALVES: Calls = &[
    call(Split, no(0)),
    calls(Post, no(0), 1),
    calls(Post, no(3), 1),
    give(no(3), 1, 1),
    calls(PostAll, no(3), 2),
    bytes(PostAll, no(3), 0, 1),
    calls(Loan, no(3), 2),
    calls(Named, no(3), 2),
    calls(Invoke, no(3), 2),
    call(Receive, no(2)),
    calls(Receive, no(2), 2),
    call(Ask, no(2)),
    call(Ask, no(3)),
    call(Split, no(2)),
    call(Travel, no(3)),
    call(Gathering, 0),
    calls(Insert, no(2), no(0)),
    calls(Insert, no(3), no(0)),
    call(Channel, 0),
    give(no(4), 2, 3),
    give(no(4), 3, 0),
    calls(Join, no(3), no(2)),
    calls(Join, no(2), no(2)),
    calls(Join, no(2), no(1)),
    call(Split, no(1)),
    calls(Join, no(2), no(7)),
    calls(Join, no(6), no(3)),
    calls(Post, no(2), 9),
    call(Receive, no(7)),
    calls(Join, no(6), no(7)),
    call(Close, no(7)),
    call(ReleaseAll, 0),
    calls(Loan, no(6), 7),
    calls(Join, no(6), no(7)),
    call(Close, no(6)),
    calls(Publish, no(6), 0),
    call(Receive, no(3)),
    call(ReleaseAll, 0),
    calls(Post, no(2), 9),
    calls(Join, no(6), no(7)),
    calls(Join, no(6), no(7)),
    call(Receive, no(8)),
    call(ReleaseAll, 0),
    calls(Post, no(8), 9),
    call(Receive, no(3)),
    call(ReleaseAll, 0),
    call(Busy, no(3)),
    // The port goes with its second half.
    call(Close, no(3)),
    calls(Post, no(8), 9),
    calls(Post, no(2), 9),
    call(Receive, no(8)),
    call(Ask, no(8)),
    call(Close, no(2)),
    call(Receive, no(8)),
];

/// A loop tells no end that this program has made itself.
const SHUT_HALF: Calls = &[
    call(Split, no(0)),
    call(Shutdown, no(3)),
    call(Ask, no(2)),
    calls(Join, no(2), no(3)),
    call(Gathering, 1),
    calls(Insert, no(4), no(0)),
    calls(Run, 0, no(0)),
    call(Channel, 0),
    calls(Insert, no(5), no(0)),
    call(Shutdown, no(5)),
    calls(Run, 0, no(0)),
];

const NAMES: Calls = &[
    calls(Named, no(0), 0),
    calls(Named, no(0), 3),
    calls(Named, no(0), 4),
    calls(Named, no(0), 9),
    calls(Named, no(0), 10),
    calls(Named, no(0), 99),
    calls(Named, no(0), 240),
    calls(Post, no(0), 1),
    bytes(PostWith, no(0), 99, 0),
    calls(Receive, no(1), 3),
    calls(Receive, no(1), 3),
    call(Open, no(0)),
    call(Open, no(3)),
    call(Open, no(5)),
    call(Release, no(0)),
    call(Open, no(0)),
    call(ReleaseAll, 0),
    call(Channel, 0),
    bytes(Invoke, no(0), 4, 3),
    bytes(Invoke, no(0), 10, 5),
    bytes(Invoke, no(0), 5, 2),
    bytes(Invoke, no(0), 5, 1),
    call(Receive, no(1)),
    calls(TakePorts, no(6), 1),
    calls(TakePorts, no(6), 2),
    call(Open, no(6)),
    calls(Post, no(5), 20),
    call(Close, no(5)),
    calls(Receive, no(4), 2),
    calls(Receive, no(4), 2),
    // A request that nobody answers.
    calls(Invoke, no(0), 99),
    calls(Invoke, no(0), 5),
    call(Receive, no(1)),
    call(Gathering, 0),
    calls(Insert, no(1), no(0)),
    calls(Invoke, no(0), 7),
    calls(Wait, 3, no(0)),
    calls(Named, no(1), 7),
    call(ReleaseAll, 0),
    call(Receive, no(7)),
];

/// All ways by which a member goes, and what handlers do.
const HANDLERS: Calls = &[
    call(Gathering, 1),
    call(Gathering, 1),
    calls(Insert, no(1), no(0)),
    calls(Insert, no(1), no(1)),
    calls(PostAll, no(0), 3),
    calls(Run, 0, no(0)),
    calls(PostAll, no(0), 3),
    bytes(Run, 0, no(0), RELEASES),
    calls(PostAll, no(0), 2),
    bytes(Run, 0, no(0), STOPS),
    bytes(Run, 1, no(0), RUNS),
    calls(PostAll, no(0), 2),
    bytes(Run, 0, no(0), PAUSES),
    calls(Run, 0, no(0)),
    bytes(Pause, no(1), no(0), 1),
    bytes(Run, 0, no(0), REMOVES),
    calls(Run, 0, no(0)),
    call(Receive, no(1)),
    calls(Insert, no(1), no(0)),
    call(ReleaseAll, 0),
    bytes(Insert, no(1), no(0), 1),
    calls(Post, no(0), 1),
    calls(Run, 0, no(0)),
    bytes(Pause, no(1), no(0), 1),
    calls(Remove, no(1), no(1)),
    calls(Remove, no(1), no(0)),
    calls(Remove, no(1), no(0)),
    calls(Insert, no(1), no(1)),
    bytes(Run, 0, no(1), CLOSES),
    calls(Run, 0, no(1)),
    call(Channel, 0),
    calls(Insert, no(2), no(0)),
    calls(Post, no(3), 1),
    call(Close, no(3)),
    calls(Run, 0, no(0)),
    calls(Run, 0, no(0)),
    call(Channel, 0),
    calls(Insert, no(4), no(0)),
    calls(Insert, no(5), no(0)),
    call(Close, no(4)),
    calls(Insert, no(4), no(0)),
    calls(CloseGathering, 0, no(0)),
    calls(Insert, no(0), no(0)),
    calls(CloseGathering, 0, no(0)),
    bytes(Signal, 1, no(1), 0),
    bytes(Signal, 1, no(1), 1),
    calls(Run, 0, no(1)),
];

/// What a set tells, and of whom.
const MEMBERS: Calls = &[
    call(Gathering, 0),
    call(Gathering, 0),
    call(Channel, 0),
    calls(Insert, no(1), no(0)),
    calls(Insert, no(1), no(1)),
    calls(Insert, no(3), no(0)),
    calls(PostAll, no(0), 3),
    calls(Post, no(2), 7),
    call(Receive, no(1)),
    calls(Loan, no(1), 5),
    call(Travel, no(1)),
    call(Split, no(1)),
    call(Ask, no(1)),
    calls(Post, no(1), 5),
    calls(Wait, 1, no(0)),
    calls(Remove, no(1), no(0)),
    call(Close, no(1)),
    calls(CloseGathering, 0, no(0)),
    calls(Wait, 3, no(0)),
    calls(Wait, 3, no(0)),
    call(ReleaseAll, 0),
    calls(Pause, no(1), no(0)),
    calls(Pause, no(1), no(1)),
    calls(Post, no(0), 3),
    calls(Wait, 3, no(0)),
    calls(Remove, no(3), no(1)),
    calls(Remove, no(3), no(0)),
    calls(Insert, no(3), no(1)),
    bytes(Pause, no(1), no(0), 1),
    calls(Wait, 3, no(0)),
    call(Release, no(0)),
    call(Release, no(4)),
    call(Close, no(1)),
    calls(Post, no(1), 3),
    calls(CloseGathering, 0, no(1)),
    call(Close, no(3)),
    calls(Post, no(3), 3),
    call(Receive, no(2)),
];

/// Numbers that are nearly those of ports that are there, or were.
const MADE_UP: Calls = &[
    call(Channel, 0),
    call(Close, no(3)),
    give(no(0), 3, 0),
    calls(MadeUp, no(1), 32),
    calls(MadeUp, no(1), 47),
    calls(MadeUp, no(1), 63),
    calls(MadeUp, no(1), 28),
    calls(MadeUp, no(1), 29),
    calls(MadeUp, no(1), 31),
    calls(MadeUp, no(1), 8),
    calls(MadeUp, no(1), 27),
    calls(MadeUp, no(2), 32),
    calls(MadeUp, no(3), 40),
    bytes(MadeUp, no(3), 40, 1),
    bytes(MadeUp, 0, 0, 0),
    bytes(MadeUp, 0, 28, 1),
    bytes(MadeUp, 0, 63, 255),
    calls(Post, no(0), 3),
    calls(Receive, no(1), 2),
];

/// Another thread is inside.
const BUSY: Calls = &[
    call(Busy, no(1)),
    call(Split, no(0)),
    call(Busy, no(3)),
    call(Busy, no(1)),
    calls(Post, no(2), 3),
    call(Receive, no(1)),
];

/// Rings that are full, and grow; large messages; many at once.
const FULL: Calls = &[
    call(Channel, 3),
    calls(Post, no(2), 230),
    calls(Post, no(2), 199),
    calls(Post, no(3), 230),
    calls(Post, no(3), 230),
    calls(Post, no(3), 250),
    calls(Post, no(3), 250),
    calls(Post, no(3), 199),
    calls(Loan, no(3), 199),
    call(Cancel, no(3)),
    calls(Receive, no(2), 3),
    calls(Receive, no(3), 3),
    calls(Post, no(3), 230),
    call(ReleaseAll, 0),
    calls(Receive, no(2), 3),
    calls(Receive, no(2), 3),
    call(ReleaseAll, 0),
    calls(Post, no(3), 199),
    call(Channel, 2),
    calls(Post, no(4), 199),
    calls(Post, no(4), 220),
    calls(Receive, no(5), 3),
];

/// A port that was to send something, has not, and never will.
const FRESH_LANE: Calls = &[
    call(Channel, 1),
    call(Channel, 0),
    give(no(2), 5, 0),
    call(Close, no(3)),
    calls(Loan, no(2), 5),
    give(no(0), 3, 0),
    call(Receive, no(1)),
    calls(TakePorts, no(0), 1),
];

const BATCHES: Calls = &[
    bytes(PostAll, no(0), 0, 0),
    bytes(PostAll, no(0), 0, 1),
    bytes(PostAll, no(0), 9, 0),
    bytes(PostAll, no(0), 9, 1),
    calls(Receive, no(1), 3),
    calls(Receive, no(1), 2),
    calls(Receive, no(1), 1),
    bytes(PostAll, no(1), 15, 1),
    call(Receive, no(0)),
    call(Close, no(1)),
    call(ReleaseAll, 0),
    call(Close, no(1)),
    bytes(PostAll, no(0), 5, 1),
    bytes(PostAll, no(1), 5, 1),
    bytes(PostAll, no(1), 0, 0),
    calls(Receive, no(0), 3),
];

/// A port that goes out of the library and comes back is the same.
const TRAVEL: Calls = &[
    calls(Post, no(0), 5),
    call(Travel, no(1)),
    call(Travel, no(1)),
    call(Receive, no(1)),
    call(Receive, no(2)),
    call(Travel, no(2)),
    call(ReleaseAll, 0),
    calls(Loan, no(2), 3),
    call(Travel, no(2)),
    calls(Publish, no(2), 0),
    call(Channel, 1),
    call(Travel, no(3)),
    calls(Post, no(5), 5),
    call(Receive, no(4)),
    call(Gathering, 0),
    calls(Insert, no(5), no(0)),
    call(Travel, no(5)),
    call(Shutdown, no(2)),
    call(Travel, no(2)),
    call(Receive, no(0)),
];

/// A port that went with a message that nobody has looked into.
const LOST: Calls = &[
    call(Channel, 0),
    call(Channel, 0),
    calls(Post, no(3), 4),
    give(no(0), 3, 0),
    call(Receive, no(1)),
    call(Release, no(0)),
    call(Receive, no(3)),
    call(Ask, no(3)),
    give(no(0), 4, 0),
    call(Close, no(1)),
    call(Receive, no(5)),
];
