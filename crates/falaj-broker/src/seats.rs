//! Who is connected, so that a new client finds room.
//!
//! Always: there are at most so many connections. When all seats are taken, whoever has waited for
//! longest without a request leaves; who never sent one leaves first.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// All seats.
pub(crate) struct Seats {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    last: u64,
    by_number: HashMap<u64, Seat>,
}

struct Seat {
    since: Instant,
    /// A request is being read or answered.
    busy: bool,
    /// It has sent a request before.
    served: bool,
    leave: CancellationToken,
}

/// A taken seat; given back when dropped.
pub(crate) struct Guest {
    seats: Arc<Seats>,
    number: u64,
    /// Cancelled where somebody else needs the seat.
    pub leave: CancellationToken,
}

impl Seats {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            taken: Mutex::default(),
        })
    }

    /// A seat, unless all are taken by clients that are being served.
    pub fn take(self: &Arc<Self>) -> Option<Guest> {
        let mut taken = self.taken.lock();
        if taken.by_number.len() >= self.max {
            let idle = taken.by_number.iter().filter(|(_, seat)| !seat.busy);
            let longest = idle.min_by_key(|(_, seat)| (seat.served, seat.since));
            let number = *longest?.0;
            let left = taken.by_number.remove(&number)?;
            left.leave.cancel();
        }
        taken.last += 1;
        let number = taken.last;
        let leave = CancellationToken::new();
        let seat = Seat {
            since: Instant::now(),
            busy: false,
            served: false,
            leave: leave.clone(),
        };
        taken.by_number.insert(number, seat);
        Some(Guest {
            seats: Arc::clone(self),
            number,
            leave,
        })
    }
}

impl Guest {
    /// A request has begun.
    pub fn busy(&self) {
        self.set(true);
    }

    /// The next request is waited for.
    pub fn idle(&self) {
        self.set(false);
    }

    fn set(&self, busy: bool) {
        if let Some(seat) = self.seats.taken.lock().by_number.get_mut(&self.number) {
            seat.served |= busy;
            seat.busy = busy;
            seat.since = Instant::now();
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.seats.taken.lock().by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_longest_makes_room() {
        let seats = Seats::new(3);
        let (mute, old, new) = (
            seats.take().unwrap(),
            seats.take().unwrap(),
            seats.take().unwrap(),
        );
        for guest in [&old, &new] {
            guest.busy();
            guest.idle();
        }
        // In this order they have to go; the last ones are being served.
        let fourth = seats.take().unwrap();
        assert!(mute.leave.is_cancelled() && !old.leave.is_cancelled());
        fourth.busy();
        let fifth = seats.take().unwrap();
        assert!(old.leave.is_cancelled() && !new.leave.is_cancelled());
        fifth.busy();
        new.busy();
        assert!(seats.take().is_none());
        drop(new);
        assert!(seats.take().is_some());
    }
}
