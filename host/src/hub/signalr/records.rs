//! Records that end in U+001E, put together from frames.

use super::END;

/// A record is longer than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("A message may have {0} bytes.")]
pub struct TooLong(usize);

/// What came and is not read yet.
#[derive(Debug)]
pub struct Records {
    text: String,
    /// Where the next record begins.
    start: usize,
    /// Up to where there is no end of it.
    searched: usize,
    max: usize,
}

impl Records {
    /// Records of at most `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { text: String::new(), start: 0, searched: 0, max }
    }

    /// Takes what came in a frame. [`next`](Self::next) is to be asked until it has none before the next
    /// is taken: so what is held is at most a record and a frame.
    pub fn push(&mut self, text: &str) {
        self.text.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.text.push_str(text);
    }

    /// The next whole record, without its end.
    ///
    /// # Errors
    /// When the record is too long, whole or not.
    pub fn next(&mut self) -> Result<Option<String>, TooLong> {
        let found = self.text.get(self.searched..).and_then(|rest| rest.find(END)).map(|at| self.searched + at);
        let end = found.unwrap_or(self.text.len());
        if end - self.start > self.max {
            return Err(TooLong(self.max));
        }
        let record = found.and_then(|end| self.text.get(self.start..end)).map(ToOwned::to_owned);
        self.searched = found.map_or(end, |end| end + END.len_utf8());
        if record.is_some() {
            self.start = self.searched;
        } else if self.start == self.text.len() {
            // Nothing is begun: give back what a long message took.
            *self = Self::new(self.max);
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(records: &mut Records) -> Result<Vec<String>, TooLong> {
        std::iter::from_fn(|| records.next().transpose()).collect()
    }

    #[test]
    fn records_share_frames_and_are_cut_by_them() {
        let mut records = Records::new(100);
        let mut seen = Vec::new();
        for frame in ["a\u{1e}b", "b", "b\u{1e}\u{1e}", "c", "\u{1e}d"] {
            records.push(frame);
            seen.extend(all(&mut records).expect("short enough"));
        }
        assert_eq!(seen, ["a", "bbb", "", "c"]);
    }

    #[test]
    fn what_never_ends_is_refused_at_the_limit() {
        let mut records = Records::new(10);
        for _ in 0..10 {
            records.push("x");
            assert_eq!(records.next(), Ok(None));
        }
        records.push("x");
        assert_eq!(records.next(), Err(TooLong(10)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: crate::hub::fuzzed(), ..ProptestConfig::default() })]
        #[test]
        fn however_it_is_cut_the_records_are_the_same(
            texts in prop::collection::vec("[^\u{1e}]{0,8}", 0..20),
            cuts in prop::collection::vec(0..8_usize, 0..60),
        ) {
            let whole: Vec<char> = texts.iter().flat_map(|text| text.chars().chain([END])).collect();
            let mut records = Records::new(64);
            let (mut seen, mut at, mut cuts) = (Vec::new(), 0, cuts.into_iter());
            while at < whole.len() {
                let to = whole.len().min(at + cuts.next().unwrap_or(5));
                records.push(&whole[at..to].iter().collect::<String>());
                seen.extend(all(&mut records).expect("short enough"));
                prop_assert!(records.text.len() <= 64 + 8 * 4);
                at = to;
            }
            prop_assert_eq!(seen, texts);
        }
    }
}
