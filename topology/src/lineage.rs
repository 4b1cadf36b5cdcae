//! Which roots a tuple belongs to, and how a tree of tuples is known to be done.
//!
//! Storm's acker keeps one 64-bit word per root, the XOR of the ids of all tuples created and acked;
//! when it is zero, the tree is done. Galerna turns that around into *secret sharing*: a root has a
//! secret word, [`RootId::secret`], and every live tuple of its tree holds a share, such that the
//! shares of all live tuples XOR to what the ledger has not seen yet. A bolt that emits splits the
//! share of its input among its outputs (random words, the last one being the remainder), so an inner
//! hop tells the ledger **nothing**; only leaves do, by handing their share back. The order in which
//! shares arrive does not matter, and a tree seems done early with a probability of 2⁻⁶⁴ only.
//!
//! Most tuples are the only one of their tree at any moment: they hold the whole secret, which needs
//! no word at all. A batch of such tuples with consecutive roots is one [`Span::Whole`], and handing
//! it back is one range, whatever its length. Tuples emitted for one input stay one [`Span::Share`]
//! as long as they lie side by side: what they hold together is split only where they part.

/// A pending root: the spout task that emitted it (upper 16 bits) and its sequence number (lower 48).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RootId(u64);

impl RootId {
    /// Bits of the sequence number: at fifty million roots a second they wrap after 65 days, long
    /// after any tuple of the same number can still be around.
    pub const SEQUENCE_BITS: u32 = 48;

    /// The root with this sequence number of this spout task.
    pub const fn new(task: u16, sequence: u64) -> Self {
        Self(((task as u64) << Self::SEQUENCE_BITS) | (sequence & ((1 << Self::SEQUENCE_BITS) - 1)))
    }

    /// The spout task, numbered over the whole topology.
    pub const fn task(self) -> u16 {
        (self.0 >> Self::SEQUENCE_BITS) as u16
    }

    /// The sequence number within the spout task.
    pub const fn sequence(self) -> u64 {
        self.0 & ((1 << Self::SEQUENCE_BITS) - 1)
    }

    /// The root `n` numbers further on. The caller keeps within the 48 bits.
    #[inline]
    pub const fn plus(self, n: u32) -> Self {
        Self(self.0 + n as u64)
    }

    /// The word that the shares of this root's tree XOR to.
    #[inline]
    pub const fn secret(self) -> u64 {
        mix(self.0)
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection without visible structure.
#[inline]
const fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A source of random words, one per task: SplitMix64.
#[derive(Debug, Clone)]
pub struct ShareRng {
    state: u64,
}

impl ShareRng {
    /// A source that starts at `seed`.
    pub const fn new(seed: u64) -> Self {
        // The seed is mixed so that neighbouring seeds do not give shifted copies of one sequence.
        Self { state: mix(seed ^ 0x6a09_e667_f3bc_c908) }
    }

    /// The next random word.
    #[inline]
    pub const fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// What one tuple holds of its roots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AckToken {
    /// Nothing: nobody waits for this tuple.
    #[default]
    Untracked,
    /// All that is outstanding of one root.
    Whole(RootId),
    /// A share of one root.
    Share(RootId, u64),
    /// Shares of several roots. The only form with an allocation, made only by multi-anchoring.
    Multi(Box<[(RootId, u64)]>),
}

impl AckToken {
    /// The roots that it is of.
    pub fn roots(&self) -> impl Iterator<Item = RootId> {
        let (one, several) = match self {
            Self::Untracked => (None, &[][..]),
            Self::Whole(root) | Self::Share(root, _) => (Some(*root), &[][..]),
            Self::Multi(list) => (None, &**list),
        };
        one.into_iter().chain(several.iter().map(|(root, _)| *root))
    }

    /// Whether anybody waits for this tuple.
    pub fn is_tracked(&self) -> bool {
        !matches!(self, Self::Untracked)
    }

    /// Takes a random share off this token and returns it.
    #[inline]
    pub fn split(&mut self, shares: &mut ShareRng) -> Self {
        match self {
            Self::Untracked => Self::Untracked,
            Self::Whole(root) => {
                let word = shares.word();
                let root = *root;
                *self = Self::Share(root, root.secret() ^ word);
                Self::Share(root, word)
            }
            Self::Share(root, rest) => {
                let word = shares.word();
                *rest ^= word;
                Self::Share(*root, word)
            }
            Self::Multi(list) => Self::Multi(
                list.iter_mut()
                    .map(|(root, rest)| {
                        let word = shares.word();
                        *rest ^= word;
                        (*root, word)
                    })
                    .collect(),
            ),
        }
    }

    /// One token of all the roots of both. A root that is in both is held once, its shares merged.
    pub fn merge(self, other: Self) -> Self {
        Self::merge_all([self, other])
    }

    /// One token of all their roots. A root that is in several is held once, its shares merged. Takes time in proportion to
    /// n log n for n shares in all.
    pub fn merge_all(tokens: impl IntoIterator<Item = Self>) -> Self {
        let mut tokens = tokens.into_iter().filter(Self::is_tracked);
        let Some(first) = tokens.next() else { return Self::Untracked };
        let Some(second) = tokens.next() else { return first };
        let mut all: Vec<(RootId, u64)> = Vec::new();
        for token in [first, second].into_iter().chain(tokens) {
            match token {
                Self::Untracked => {}
                Self::Whole(root) => all.push((root, root.secret())),
                Self::Share(root, share) => all.push((root, share)),
                Self::Multi(list) => all.extend_from_slice(&list),
            }
        }
        // The sort is of words and need not keep an order: shares of one root are summed.
        all.sort_unstable_by_key(|(root, _)| *root);
        all.dedup_by(|(root, share), (before, sum)| {
            let same = root == before;
            if same {
                *sum ^= *share;
            }
            same
        });
        match all[..] {
            [(root, share)] => Self::Share(root, share),
            _ => Self::Multi(all.into()),
        }
    }
}

/// A run of tuples in a batch that hold alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Span {
    /// This many untracked tuples.
    Untracked(u32),
    /// This many tuples, each all that is outstanding of its root; the roots are consecutive.
    Whole(RootId, u32),
    /// This many tuples that together hold a share of one root. It is split when they part, by
    /// [`Lineage::drain`].
    Share(RootId, u64, u32),
    /// One tuple with shares of several roots.
    Multi(Box<[(RootId, u64)]>),
}

/// The tokens of a batch of tuples, in order, run-length encoded.
#[derive(Debug, Clone, Default)]
pub struct Lineage {
    spans: Vec<Span>,
}

impl Lineage {
    /// No tuples.
    pub const fn new() -> Self {
        Self { spans: Vec::new() }
    }

    /// Whether it has no tuples.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The spans, in the order of the tuples.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The number of tuples. Counts the spans.
    pub fn rows(&self) -> usize {
        self.spans
            .iter()
            .map(|span| match span {
                Span::Untracked(rows) | Span::Whole(_, rows) | Span::Share(_, _, rows) => *rows as usize,
                Span::Multi(_) => 1,
            })
            .sum()
    }

    /// Forgets all tuples and keeps the memory.
    pub fn clear(&mut self) {
        self.spans.clear();
    }

    /// Appends one tuple.
    #[inline]
    pub fn push(&mut self, token: AckToken) {
        // The usual cases are kept small enough to be inlined into the loops over tuples.
        match token {
            AckToken::Untracked => self.push_untracked(1),
            AckToken::Whole(root) => self.push_whole(root, 1),
            AckToken::Share(root, share) => self.push_share(root, share, 1),
            AckToken::Multi(list) => self.push_multi(list),
        }
    }

    #[inline(never)]
    fn push_multi(&mut self, list: Box<[(RootId, u64)]>) {
        self.spans.push(Span::Multi(list));
    }

    /// Appends tuples that hold a share together.
    #[inline]
    pub fn push_share(&mut self, root: RootId, share: u64, count: u32) {
        // Neighbours of one root hold together what each of them held.
        if let Some(Span::Share(last, sum, rows)) = self.spans.last_mut()
            && *last == root
        {
            *sum ^= share;
            *rows += count;
        } else {
            self.spans.push(Span::Share(root, share, count));
        }
    }

    /// Appends untracked tuples.
    #[inline]
    pub fn push_untracked(&mut self, count: u32) {
        if let Some(Span::Untracked(rows)) = self.spans.last_mut() {
            *rows += count;
        } else if count > 0 {
            self.spans.push(Span::Untracked(count));
        }
    }

    /// Appends tuples that are the whole of consecutive roots.
    #[inline]
    pub fn push_whole(&mut self, first: RootId, count: u32) {
        if let Some(Span::Whole(root, rows)) = self.spans.last_mut()
            && root.plus(*rows) == first
        {
            *rows += count;
        } else if count > 0 {
            self.spans.push(Span::Whole(first, count));
        }
    }

    /// Appends what a done tuple hands back to the ledger. Unlike [`Lineage::push`] this need not keep
    /// a row per tuple: neighbouring shares of one root are summed, untracked tuples left out.
    #[inline]
    pub fn push_settled(&mut self, token: AckToken) {
        match token {
            AckToken::Whole(root) => self.push_whole(root, 1),
            AckToken::Share(root, share) => self.push_share(root, share, 1),
            AckToken::Untracked => {}
            AckToken::Multi(list) => self.settle_multi(&list),
        }
    }

    #[inline(never)]
    fn settle_multi(&mut self, list: &[(RootId, u64)]) {
        list.iter().for_each(|&(root, share)| self.push_share(root, share, 1));
    }

    /// Moves all of `other` behind what is here, as tuples.
    pub fn append(&mut self, other: &mut Self) {
        let mut rest = other.spans.drain(..);
        // Only the seam can merge.
        match rest.next() {
            None => return,
            Some(Span::Untracked(rows)) => self.push_untracked(rows),
            Some(Span::Whole(first, rows)) => self.push_whole(first, rows),
            Some(Span::Share(root, share, rows)) => self.push_share(root, share, rows),
            Some(Span::Multi(list)) => self.push_multi(list),
        }
        self.spans.extend(rest);
    }

    /// Moves all of `other` behind what is here, as handed back.
    pub fn settle_all(&mut self, other: &mut Self) {
        for span in other.spans.drain(..) {
            match span {
                Span::Untracked(_) => {}
                Span::Whole(first, rows) => self.push_whole(first, rows),
                Span::Share(root, share, rows) => self.push_share(root, share, rows),
                Span::Multi(list) => self.settle_multi(&list),
            }
        }
    }

    /// A second lineage for copies of the same tuples: each token is split between the two.
    pub fn split(&mut self, shares: &mut ShareRng) -> Self {
        let mut copy = Self { spans: Vec::with_capacity(self.spans.len()) };
        let mut rest = Self { spans: Vec::with_capacity(self.spans.len()) };
        for span in self.spans.drain(..) {
            match span {
                Span::Untracked(rows) => {
                    copy.push_untracked(rows);
                    rest.push_untracked(rows);
                }
                Span::Whole(first, rows) => {
                    for at in 0..rows {
                        let (root, word) = (first.plus(at), shares.word());
                        copy.push_share(root, word, 1);
                        rest.push_share(root, root.secret() ^ word, 1);
                    }
                }
                Span::Share(root, share, rows) => {
                    let word = shares.word();
                    copy.push_share(root, word, rows);
                    rest.push_share(root, share ^ word, rows);
                }
                Span::Multi(list) => {
                    let mut token = AckToken::Multi(list);
                    copy.push(token.split(shares));
                    rest.push(token);
                }
            }
        }
        *self = rest;
        copy
    }

    /// Takes out one tuple. Costs as much as all of them.
    #[cold]
    pub fn remove(&mut self, at: usize) -> AckToken {
        let (mut kept, mut removed) = (Self::new(), AckToken::Untracked);
        for (row, token) in self.drain().enumerate() {
            if row == at {
                removed = token;
            } else {
                kept.push(token);
            }
        }
        *self = kept;
        removed
    }

    /// Takes out the spans.
    pub fn drain_spans(&mut self) -> std::vec::Drain<'_, Span> {
        self.spans.drain(..)
    }

    /// The spans by themselves.
    pub fn into_spans(self) -> Vec<Span> {
        self.spans
    }

    /// Takes out the tokens one by one.
    pub fn drain(&mut self) -> Tokens<'_> {
        Tokens { spans: self.spans.drain(..), run: Run::None }
    }
}

enum Run {
    None,
    Untracked(u32),
    Whole(RootId, u32),
    Share(RootId, u64, u32),
}

/// The tokens of a batch, one a tuple. Made by [`Lineage::drain`].
pub struct Tokens<'a> {
    spans: std::vec::Drain<'a, Span>,
    run: Run,
}

impl Tokens<'_> {
    /// What has not been taken yet, as a lineage of its own.
    pub fn into_rest(self) -> Lineage {
        let mut rest = Lineage::new();
        match self.run {
            Run::None => {}
            Run::Untracked(left) => rest.push_untracked(left),
            Run::Whole(root, left) => rest.push_whole(root, left),
            Run::Share(_, _, 0) => {}
            Run::Share(root, share, left) => rest.push_share(root, share, left),
        }
        rest.spans.extend(self.spans);
        rest
    }
}

impl Iterator for Tokens<'_> {
    type Item = AckToken;

    #[inline]
    fn next(&mut self) -> Option<AckToken> {
        loop {
            match &mut self.run {
                Run::Whole(root, left) if *left > 0 => {
                    let now = *root;
                    *root = now.plus(1);
                    *left -= 1;
                    return Some(AckToken::Whole(now));
                }
                Run::Share(root, rest, left) if *left > 0 => {
                    *left -= 1;
                    // A word that nobody else derives: the shares of a root are all different.
                    let word = if *left == 0 { *rest } else { mix(*rest) };
                    *rest ^= word;
                    return Some(AckToken::Share(*root, word));
                }
                Run::Untracked(left) if *left > 0 => {
                    *left -= 1;
                    return Some(AckToken::Untracked);
                }
                _ => match self.spans.next()? {
                    Span::Untracked(rows) => self.run = Run::Untracked(rows),
                    Span::Whole(root, rows) => self.run = Run::Whole(root, rows),
                    Span::Share(root, share, rows) => self.run = Run::Share(root, share, rows),
                    Span::Multi(list) => return Some(AckToken::Multi(list)),
                },
            }
        }
    }
}
