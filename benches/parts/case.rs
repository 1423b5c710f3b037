//! What is measured: something that can be done again and again, made ready when it is its turn.
//!
//! The same cases are timed by Criterion and counted by `benches/icount.py`, each in a process of
//! its own, so that what one leaves in the heap does not show in another.

use criterion::{Criterion, Throughput};
use std::error::Error;
use std::io::Write;

/// What is done again and again.
pub(super) type Round = Box<dyn FnMut()>;

/// Rounds that are not counted: they grow buffers, and make what is made once.
const WARM_UP: u64 = 20;

/// Something to measure.
pub(super) struct Case {
    group: &'static str,
    name: String,
    throughput: Throughput,
    prepare: Box<dyn FnOnce() -> Round>,
}

impl Case {
    /// A case whose round is one of something: a request, a message.
    pub(super) fn new<F: FnMut() + 'static>(
        group: &'static str,
        name: impl Into<String>,
        prepare: impl FnOnce() -> F + 'static,
    ) -> Self {
        let prepare = Box::new(|| Box::new(prepare()) as Round);
        Self { group, name: name.into(), throughput: Throughput::Elements(1), prepare }
    }

    /// The same case, whose round is about so many bytes.
    pub(super) fn bytes(self, bytes: usize) -> Self {
        Self { throughput: Throughput::Bytes(bytes as u64), ..self }
    }

    fn full_name(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    fn time(self, criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group(self.group);
        group.throughput(self.throughput);
        // Criterion comes to a case several times, and never to one that was not asked for.
        let (mut prepare, mut round) = (Some(self.prepare), None);
        group.bench_function(self.name, |bencher| {
            if let Some(prepare) = prepare.take() {
                round = Some(prepare());
            }
            if let Some(round) = &mut round {
                bencher.iter(round);
            }
        });
        group.finish();
    }
}

/// Does what `arguments` say: `names` prints the names of the cases, `count NAME ROUNDS` does so
/// many rounds of one under the eyes of callgrind, and anything else is for `criterion`.
///
/// # Errors
///
/// There is no such case, or ROUNDS is no number.
pub(super) fn measure(
    cases: Vec<Case>,
    arguments: &[String],
    criterion: fn(&[String]) -> Criterion,
) -> Result<(), Box<dyn Error>> {
    match arguments {
        [command] if command == "names" => {
            let mut out = std::io::stdout().lock();
            cases.iter().try_for_each(|case| writeln!(out, "{}", case.full_name()))?;
        }
        [command, name, rounds] if command == "count" => {
            let found = cases.into_iter().find(|case| case.full_name() == *name);
            let case = found.ok_or_else(|| format!("there is no case {name}"))?;
            let rounds = rounds.parse()?;
            let mut round = (case.prepare)();
            for _ in 0..WARM_UP {
                round();
            }
            counted_rounds(&mut round, rounds);
        }
        _ => {
            let mut criterion = criterion(arguments);
            for case in cases {
                case.time(&mut criterion);
            }
            criterion.final_summary();
        }
    }
    Ok(())
}

/// A function of its own, by whose name callgrind begins and ends to count.
#[inline(never)]
fn counted_rounds(round: &mut Round, rounds: u64) {
    for _ in 0..rounds {
        round();
    }
}
