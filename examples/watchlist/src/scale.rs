//! How many workers there are.

/// Workers by backlog, between bounds: as many as it asks for at once, and fewer only when it has asked for fewer for a while.
#[derive(Debug, Clone)]
pub struct Scale {
    least: usize,
    most: usize,
    /// Jobs that a worker is to have before there is another.
    jobs_each: usize,
    /// Looks for which fewer must be enough.
    calm: u32,
    workers: usize,
    fewer_for: u32,
}

impl Scale {
    /// From `least` to `most` workers, one for every `jobs_each` jobs.
    pub fn new(least: usize, most: usize, jobs_each: usize) -> Self {
        let least = least.max(1);
        Self {
            least,
            most: most.max(least),
            jobs_each: jobs_each.max(1),
            calm: 10,
            workers: least,
            fewer_for: 0,
        }
    }

    /// How many there are now.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Looks at the backlog, and says how many there are from now on.
    pub fn look(&mut self, backlog: usize) -> usize {
        let wanted = backlog.div_ceil(self.jobs_each).clamp(self.least, self.most);
        if wanted >= self.workers {
            self.workers = wanted;
            self.fewer_for = 0;
        } else {
            self.fewer_for += 1;
            if self.fewer_for >= self.calm {
                self.workers -= 1;
                self.fewer_for = 0;
            }
        }
        self.workers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_follow_the_backlog_up_at_once_and_down_one_by_one() {
        let mut scale = Scale::new(1, 16, 4);
        for (backlog, workers) in [(0, 1), (4, 1), (5, 2), (64, 16), (1_000, 16)] {
            assert_eq!(scale.look(backlog), workers, "{backlog}");
        }
        // Nine looks at nothing change nothing, and a backlog in between begins the count anew.
        assert!((0..9).all(|_| scale.look(0) == 16));
        assert_eq!(scale.look(64), 16);
        let counts: Vec<usize> = (0..150).map(|_| scale.look(0)).collect();
        assert_eq!((counts[8], counts[9], counts[19], counts[149]), (16, 15, 14, 1));
    }
}
