//! Rows of a recording as they lie in a block: column by column, as differences; see the Python `_recording.columns`.

use std::borrow::Cow;
use std::fmt;

use super::row::Row;

/// How many numbers a row has.
pub const COLUMNS: usize = 17;
/// Stands for what is not known.
pub const UNKNOWN: i64 = i64::MIN;

const GROUP: usize = 128;
const MOST_BITS: u32 = 66;
const MOST_ROWS: usize = 1 << 22;
/// Groups of no more bits, that begin no higher, are read without a look at each code.
const FEW_BITS: usize = 32;
/// Sums of a group's differences of few bits stay within 64 bits, from there on.
const FAR: i64 = 1 << 62;

/// Why bytes are no rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// There are fewer numbers than rows need.
    EndsTooEarly,
    /// There are more.
    HasMore,
    /// A number has more than 64 bits.
    TooLarge,
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::EndsTooEarly => "it ends too early",
            Self::HasMore => "it has more than its rows",
            Self::TooLarge => "a number is too large",
        })
    }
}

/// The rows of a block: numbers that are the same in all of them, and columns of the others.
#[derive(Debug)]
pub struct Block {
    /// How many rows there are.
    pub count: usize,
    /// What a row has in columns that do not change.
    pub constants: Row,
    varying: Vec<(usize, Vec<i64>)>,
    /// Memory that served before.
    spare: Vec<Vec<i64>>,
}

impl Default for Block {
    fn default() -> Self {
        Self { count: 0, constants: Row([UNKNOWN; COLUMNS]), varying: Vec::new(), spare: Vec::new() }
    }
}

impl Block {
    /// Puts what changes into a row that has the constants.
    #[inline]
    pub fn fill(&self, place: usize, row: &mut Row) {
        for (column, numbers) in &self.varying {
            row.0[*column] = numbers[place];
        }
    }

    /// Returns the columns that change.
    pub fn changing(&self) -> impl Iterator<Item = usize> {
        self.varying.iter().map(|(column, _)| *column)
    }

    /// Returns the numbers of a column; they are made for it if they are all the same.
    pub fn column(&self, column: usize) -> Cow<'_, [i64]> {
        match self.varying.iter().find(|(it, _)| *it == column) {
            Some((_, numbers)) => Cow::Borrowed(numbers),
            None => Cow::Owned(vec![self.constants.0[column]; self.count]),
        }
    }

    /// Reads a block of so many rows.
    ///
    /// # Errors
    /// The bytes are damaged, or of other columns.
    pub fn read(&mut self, content: &[u8], count: usize) -> Result<(), Damage> {
        let mut reader = Reader(content);
        let told = reader.varint()?;
        if told != u128::try_from(count).unwrap_or(u128::MAX) || count > MOST_ROWS {
            let fewer = usize::try_from(told).is_ok_and(|told| told < count);
            return Err(if fewer { Damage::EndsTooEarly } else { Damage::HasMore });
        }
        self.count = count;
        self.spare.extend(self.varying.drain(..).map(|(_, numbers)| numbers));
        for column in 0..COLUMNS {
            let mut numbers = self.spare.pop().unwrap_or_default();
            numbers.clear();
            self.constants.0[column] = reader.column(count, &mut numbers)?;
            if numbers.is_empty() { self.spare.push(numbers) } else { self.varying.push((column, numbers)) }
        }
        if reader.0.is_empty() { Ok(()) } else { Err(Damage::HasMore) }
    }
}

/// Takes one thing after the other off the bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    /// Reads a column; returns its first number, and leaves `numbers` empty if all are like it.
    fn column(&mut self, count: usize, numbers: &mut Vec<i64>) -> Result<i64, Damage> {
        if count == 0 {
            return Ok(UNKNOWN);
        }
        let mut last = 0;
        let first = step(&mut last, self.varint()?)?;
        let (mut now, mut done) = (first, 1);
        while done < count {
            let (many, base, width) = ((count - done).min(GROUP), self.varint()?, usize::from(self.byte()?));
            if width > MOST_BITS as usize {
                return Err(Damage::TooLarge);
            }
            let (bits, left) = self.0.split_at_checked((many * width).div_ceil(8)).ok_or(Damage::EndsTooEarly)?;
            self.0 = left;
            let stays = u128::from(now != UNKNOWN);
            if width > 0 || base != stays {
                if numbers.is_empty() {
                    numbers.resize(done, first);
                }
                group(bits, many, width, base, &mut last, numbers)?;
                now = numbers.last().copied().unwrap_or(now);
            } else if !numbers.is_empty() {
                numbers.resize(done + many, now);
            }
            done += many;
        }
        Ok(first)
    }

    fn byte(&mut self) -> Result<u8, Damage> {
        let (byte, left) = self.0.split_first().ok_or(Damage::EndsTooEarly)?;
        self.0 = left;
        Ok(*byte)
    }

    fn varint(&mut self) -> Result<u128, Damage> {
        let (mut number, mut shift, mut is_large) = (0, 0, false);
        loop {
            let byte = self.byte()?;
            let bits = u128::from(byte & 127);
            if shift < 119 {
                number |= bits << shift;
            } else {
                is_large |= bits != 0;
            }
            shift += 7;
            if byte < 128 {
                break;
            }
        }
        if is_large || number >> MOST_BITS > 0 { Err(Damage::TooLarge) } else { Ok(number) }
    }
}

/// Adds the numbers of a group.
fn group(
    bits: &[u8],
    many: usize,
    width: usize,
    base: u128,
    last: &mut i64,
    numbers: &mut Vec<i64>,
) -> Result<(), Damage> {
    if let Ok(few) = u32::try_from(base)
        && width <= FEW_BITS
        && (-FAR..FAR).contains(last)
    {
        near(bits, many, width, u64::from(few), last, numbers);
        return Ok(());
    }
    for place in 0..many {
        let mut code = 0;
        for bit in (place * width..(place + 1) * width).rev() {
            code = code << 1 | u128::from(bits[bit / 8] >> (bit % 8) & 1);
        }
        numbers.push(step(last, base + code)?);
    }
    Ok(())
}

/// As [`group`], of differences with few bits.
fn near(bits: &[u8], many: usize, width: usize, base: u64, last: &mut i64, numbers: &mut Vec<i64>) {
    let mut padded = [0; GROUP * FEW_BITS / 8 + 8];
    padded[..bits.len()].copy_from_slice(bits);
    let mask = (1 << width) - 1;
    let mut sum = *last;
    let codes = (0..many).map(|place| {
        let at = place * width;
        let mut window = [0; 8];
        window.copy_from_slice(&padded[at / 8..at / 8 + 8]);
        base + (u64::from_le_bytes(window) >> (at % 8) & mask)
    });
    if base > 0 && width == 0 {
        let by = unzigzag(base - 1);
        numbers.extend((0..many).map(|_| {
            sum += by;
            sum
        }));
    } else if base > 0 {
        numbers.extend(codes.map(|code| {
            sum += unzigzag(code - 1);
            sum
        }));
    } else {
        numbers.extend(codes.map(|code| {
            if code == 0 {
                return UNKNOWN;
            }
            sum += unzigzag(code - 1);
            sum
        }));
    }
    *last = sum;
}

/// Returns the difference that a number of at most 34 bits stands for.
#[inline]
fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// Returns the number that a code stands for, and keeps it if it is known.
fn step(last: &mut i64, code: u128) -> Result<i64, Damage> {
    if code == 0 {
        return Ok(UNKNOWN);
    }
    let zigzag = code - 1;
    let half = i128::try_from(zigzag >> 1).map_err(|_| Damage::TooLarge)?;
    let by = if zigzag & 1 == 1 { -half - 1 } else { half };
    let moved = i64::try_from(i128::from(*last) + by).ok().filter(|it| *it != UNKNOWN);
    *last = moved.ok_or(Damage::TooLarge)?;
    Ok(*last)
}

#[cfg(test)]
mod tests {
    use super::{Block, COLUMNS, Damage, Row, UNKNOWN};

    fn rows(block: &Block) -> Vec<Row> {
        let made = |place| {
            let mut row = block.constants;
            block.fill(place, &mut row);
            row
        };
        (0..block.count).map(made).collect()
    }

    #[test]
    fn differences_become_numbers() {
        // 5, unknown, 4, 204: 11, then 0, 2 and 401 in nine bits.
        let mut content = vec![4, 11, 0, 9, 0, 0b0000_0100, 0b0100_0100, 0b0000_0110];
        content.extend([0; 3 * (COLUMNS - 1)]);
        let mut block = Block::default();
        assert_eq!(block.read(&content, 4), Ok(()));
        let first: Vec<i64> = rows(&block).iter().map(|row| row.0[0]).collect();
        assert_eq!(first, [5, UNKNOWN, 4, 204]);
        assert_eq!(rows(&block)[3].0[1], UNKNOWN);
    }

    #[test]
    fn damage_is_found() {
        let read = |content: &[u8]| Block::default().read(content, 1).err();
        assert_eq!(read(&[1; COLUMNS + 1]), None);
        assert_eq!(read(&[]), Some(Damage::EndsTooEarly));
        assert_eq!(read(&[0; COLUMNS + 1]), Some(Damage::EndsTooEarly));
        assert_eq!(read(&[2; COLUMNS + 1]), Some(Damage::HasMore));
        assert_eq!(read(&[1; COLUMNS]), Some(Damage::EndsTooEarly));
        assert_eq!(read(&[1; COLUMNS + 2]), Some(Damage::HasMore));
        let mut large = vec![1];
        large.extend([0xff; 11]);
        large.push(1);
        assert_eq!(read(&large), Some(Damage::TooLarge));
    }
}
