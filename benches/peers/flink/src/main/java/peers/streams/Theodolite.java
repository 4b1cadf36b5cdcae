package peers.streams;

import java.util.HashMap;
import java.util.List;

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

    /** How many levels of groups there can be over so many sensors, with four children each. */
    static int levelsOver(long sensors) {
        int levels = 1;
        while (1L << 2 * (levels + 1) <= sensors) {
            levels++;
        }
        return levels;
    }

    /** The groups that each sensor and group of a tree is in. */
    static HashMap<String, List<String>> tree(int levels) {
        HashMap<String, List<String>> parents = new HashMap<>();
        for (int level = 1; level <= levels; level++) {
            for (long number = 0; number < 1L << 2 * level; number++) {
                String child = level == levels ? "s_" + number : "g_" + level + "_" + number;
                parents.put(child, List.of(level == 1 ? "group_lvl_0" : "g_" + (level - 1) + "_" + number / 4));
            }
        }
        return parents;
    }

    /** A reading of a member of a group. */
    public static class Member {
        public String group;
        public String child;
        public long at;
        public double watts;

        public Member() {}

        Member(String group, PowerRecord record) {
            this.group = group;
            this.child = record.identifier;
            this.at = record.timestamp;
            this.watts = record.valueInW;
        }
    }

    /** What a group drew in a window. */
    public static class GroupPower {
        public String group;
        public long end;
        public long count;
        public double sumInW;
        public double averageInW;

        public GroupPower() {}

        PowerRecord reading() {
            return new PowerRecord(group, end, sumInW);
        }

        long checksum() {
            return Numbers.mix(end ^ group.hashCode()) * count + Math.round(sumInW);
        }
    }
}
