//! Receive buffers, taken when there are bytes to receive and given back with the next wait.

use std::io;

use crate::proactor::Lease;

/// Number of buffers, and the bytes of each, which are allocated when they are first used.
pub(super) const BUFFERS: u16 = 128;
const BUFFER_BYTES: usize = 16 * 1024;

pub(super) struct Buffers {
    memory: Vec<Vec<u8>>,
    free: Vec<u16>,
    /// Buffers whose bytes were delivered in this turn.
    leased: Vec<u16>,
    turn: u32,
}

impl Buffers {
    pub(super) fn new(count: u16) -> Self {
        assert!((1..=BUFFERS).contains(&count), "from 1 to {BUFFERS} buffers");
        Self {
            memory: vec![Vec::new(); usize::from(count)],
            free: (0..count).rev().collect(),
            leased: Vec::new(),
            turn: 0,
        }
    }

    /// All leases end.
    pub(super) fn take_back(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        self.free.append(&mut self.leased);
    }

    /// Lease a buffer that `fill` writes into; `None` when there is none, or nothing to receive.
    pub(super) fn fill(
        &mut self,
        fill: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> Option<io::Result<Lease>> {
        let buffer = *self.free.last()?;
        let memory = &mut self.memory[usize::from(buffer)];
        memory.resize(BUFFER_BYTES, 0);
        match fill(memory) {
            Ok(length) => {
                self.free.pop();
                self.leased.push(buffer);
                Some(Ok(Lease { buffer, length, more_waits: false, turn: self.turn }))
            }
            Err(error) => Some(Err(error)),
        }
    }

    pub(super) fn bytes(&self, lease: &Lease) -> &[u8] {
        assert_eq!(lease.turn, self.turn, "a lease ends with the next wait");
        &self.memory[usize::from(lease.buffer)][..lease.length]
    }
}
