package peers.streams;

/** Readings of the power that sensors draw. */
final class Theodolite {
    private Theodolite() {}

    static final long FIRST = 1_600_000_000_000L;

    /** A reading of a sensor. */
    public static class PowerRecord {
        public String identifier;
        public long timestamp;
        public double valueInW;

        public PowerRecord() {}

        PowerRecord(String identifier, long timestamp, double valueInW) {
            this.identifier = identifier;
            this.timestamp = timestamp;
            this.valueInW = valueInW;
        }
    }

    /** Reading number n of so many sensors. */
    static PowerRecord record(long n, long sensors, long first) {
        return new PowerRecord("s_" + n % sensors, first + n * 1_000 / sensors, 10.0);
    }

    /** Count, mean, least, greatest and variance of numbers, as galerna_windows::Summary. */
    public static class Summary {
        public long count;
        public double min;
        public double max;
        public double mean;
        public double squares;

        void add(double number) {
            min = count == 0 ? number : Math.min(min, number);
            max = count == 0 ? number : Math.max(max, number);
            count += 1;
            double off = number - mean;
            mean += off / count;
            squares += off * (number - mean);
        }

        Summary merged(Summary other) {
            if (other.count == 0) {
                return this;
            }
            if (count == 0) {
                return other;
            }
            Summary both = new Summary();
            double off = other.mean - mean;
            both.count = count + other.count;
            both.min = Math.min(min, other.min);
            both.max = Math.max(max, other.max);
            both.mean = mean + off * other.count / both.count;
            both.squares = squares + other.squares + off * off * count * other.count / both.count;
            return both;
        }

        double sum() {
            return mean * count;
        }

        Summary copy() {
            Summary copy = new Summary();
            copy.count = count;
            copy.min = min;
            copy.max = max;
            copy.mean = mean;
            copy.squares = squares;
            return copy;
        }
    }

    /** What a sensor drew at an hour of the day. */
    public static class HourOfDay {
        public String identifier;
        public int hour;
        public long end;
        public Summary drawn;
        /** Whether the window is complete. */
        public boolean complete;

        public HourOfDay() {}

        long checksum() {
            return Numbers.mix(end ^ identifier.hashCode() ^ hour) * drawn.count + Math.round(drawn.sum());
        }
    }

    /** What a sensor drew in a window. */
    public static class Drawn {
        public String key;
        public long end;
        public Summary value;

        public Drawn() {}

        Drawn(String key, long end, Summary value) {
            this.key = key;
            this.end = end;
            this.value = value;
        }

        long checksum() {
            return Numbers.mix(end ^ key.hashCode()) * value.count + Math.round(value.sum());
        }
    }
}
