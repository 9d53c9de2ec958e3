//! Blocks in which nothing changes but backlog and offers, as most are: what else a row has is known beforehand.

use super::columns::{Block, COLUMNS, UNKNOWN};
use super::row::{AT_MS, BACKLOG, CIRCUIT, COUNTS, ENTERED, LEFT, MEMORY, OLDEST_AGE_MS, POLICY, Row};

const CHANGING: [usize; 5] = [AT_MS, BACKLOG, COUNTS, COUNTS + 3, COUNTS + 6];

/// The rows of such a block: nothing was delayed or shed, no circuit was open, and only offers tell what came.
#[derive(Clone, Copy)]
pub struct Quiet<'a> {
    constants: &'a Row,
    changing: [&'a [i64]; CHANGING.len()],
}

impl<'a> Quiet<'a> {
    /// Returns the rows of a block, if it is one.
    pub fn of(block: &'a Block) -> Option<Self> {
        let constants = &block.constants;
        let idle = [constants.delays(), constants.sheds()].iter().flatten().all(|count| *count <= 0);
        let silent = constants.entered() == UNKNOWN && constants.left() == UNKNOWN;
        let is_quiet = block.count > 0
            && idle
            && silent
            && !constants.is_open()
            && block.changing().all(|it| CHANGING.contains(&it));
        let changing = CHANGING.map(|column| block.column(column));
        (is_quiet && changing.iter().all(|numbers| numbers.len() == block.count))
            .then_some(Self { constants, changing })
    }

    /// Returns a row. That most of its numbers are written here lets the compiler leave out what is done about others.
    #[inline]
    pub fn row(&self, place: usize) -> Row {
        let mut numbers = [0; COLUMNS];
        for (column, changing) in CHANGING.into_iter().zip(self.changing) {
            numbers[column] = changing[place];
        }
        (numbers[ENTERED], numbers[LEFT], numbers[CIRCUIT]) = (UNKNOWN, UNKNOWN, UNKNOWN);
        for column in [OLDEST_AGE_MS, MEMORY, POLICY] {
            numbers[column] = self.constants.0[column];
        }
        Row(numbers)
    }
}
