package peers.streams;

/** The same numbers as the crate benches/streams makes, see its random.rs. */
final class Numbers {
    private Numbers() {}

    /** SplitMix64's step. */
    static long mix(long number) {
        long mixed = number + 0x9e3779b97f4a7c15L;
        mixed = (mixed ^ (mixed >>> 30)) * 0xbf58476d1ce4e5b9L;
        mixed = (mixed ^ (mixed >>> 27)) * 0x94d049bb133111ebL;
        return mixed ^ (mixed >>> 31);
    }

    /** The field-th number of event n, below bound. */
    static long below(long n, int field, long bound) {
        return (mix(n * 64 + field) >>> 1) % bound;
    }
}
