package peers.streams;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Locale;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import java.util.function.ToLongFunction;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.datagen.source.DataGeneratorSource;
import org.apache.flink.connector.datagen.source.GeneratorFunction;

/** What a run is measured by: its source, its sink and what they found. All tasks are in this process. */
final class Measured {
    private Measured() {}

    static long events = 10_000_000;
    static long sensors = 10_000;
    static int tasks = 2;
    static long rate = 0;

    private static final AtomicLong MADE = new AtomicLong();
    private static volatile long warm;
    private static volatile long warmEvents;
    private static volatile long ended;
    private static long results;
    private static long checksum;
    private static long[] latencies = new long[0];
    /** When the first event was made, at a fixed rate: in nanoseconds of this process, and in milliseconds since 1970. */
    private static long started;
    private static long first;

    private static synchronized void start() {
        if (started == 0) {
            first = System.currentTimeMillis();
            started = System.nanoTime();
        }
    }

    /** The time of the first event. */
    static long first(long fixed) {
        if (rate == 0) {
            return fixed;
        }
        if (started == 0) {
            start();
        }
        return first;
    }

    /** Makes the n-th event. */
    interface Make<T> extends java.io.Serializable {
        T make(long n);
    }

    /** Gives each of the tasks every so manieth event, where Flink gives each a stretch of its own. */
    static class Generator<T> implements GeneratorFunction<Long, T> {
        private final Make<T> make;
        private final long share = events / tasks;
        private final long of = tasks;
        private final long perSecond = rate;
        private long made;

        Generator(Make<T> make) {
            this.make = make;
        }

        @Override public T map(Long number) {
            long n = number % share * of + number / share;
            if (perSecond > 0) {
                first(0);
                long due = started + (long) (n * 1e9 / perSecond);
                for (long early = due - System.nanoTime(); early > 0; early = due - System.nanoTime()) {
                    LockSupport.parkNanos(early);
                }
            }
            if (++made % 500 == 0) {
                long all = MADE.addAndGet(500);
                if (all >= events / 4 && all - 500 < events / 4) {
                    warmEvents = all;
                    warm = System.nanoTime();
                }
            }
            return make.make(n);
        }
    }

    static <T> DataGeneratorSource<T> source(Make<T> make, TypeInformation<T> type) {
        return new DataGeneratorSource<>(new Generator<>(make), events, type);
    }

    /** A number of a result. */
    interface Of<T> extends ToLongFunction<T>, java.io.Serializable {}

    /** Whether a result counts. */
    interface Counts<T> extends java.util.function.Predicate<T>, java.io.Serializable {}

    /** Adds results up. */
    static class Tally<T> implements Sink<T> {
        private final Of<T> checksumOf;
        private final Of<T> endOf;
        private final Counts<T> counts;

        /** endOf may be nothing: then it is not measured how long results take. */
        Tally(Of<T> checksumOf, Of<T> endOf) {
            this(checksumOf, endOf, result -> true);
        }

        /** What does not count comes before its window is complete. */
        Tally(Of<T> checksumOf, Of<T> endOf, Counts<T> counts) {
            this.counts = counts;
            this.checksumOf = checksumOf;
            this.endOf = rate > 0 ? endOf : null;
        }

        @Override public SinkWriter<T> createWriter(WriterInitContext context) {
            return new SinkWriter<>() {
                private long count;
                private long sum;
                private long[] took = new long[1024];
                private int tooks;

                @Override public void write(T value, Context context) {
                    if (!counts.test(value)) {
                        return;
                    }
                    count += 1;
                    sum += checksumOf.applyAsLong(value);
                    if (endOf != null) {
                        long late = System.currentTimeMillis() - endOf.applyAsLong(value);
                        if (late >= 0) {
                            if (tooks == took.length) {
                                took = Arrays.copyOf(took, 2 * tooks);
                            }
                            took[tooks++] = late;
                        }
                    }
                }

                @Override public void flush(boolean end) {
                    if (end) {
                        synchronized (Measured.class) {
                            ended = System.nanoTime();
                            results += count;
                            checksum += sum;
                            int before = latencies.length;
                            latencies = Arrays.copyOf(latencies, before + tooks);
                            System.arraycopy(took, 0, latencies, before, tooks);
                        }
                    }
                }

                @Override public void close() {}
            };
        }
    }

    private static String latency(double part) {
        if (latencies.length == 0) {
            return "null";
        }
        return Long.toString(latencies[Math.min((int) (latencies.length * part), latencies.length - 1)]) + ".0";
    }

    /** A line of JSON, as the program `streams` prints it. */
    static String report(String query) throws Exception {
        Arrays.sort(latencies);
        double perSecond = (events - warmEvents) / ((ended - warm) / 1e9);
        long memory = Files.readAllLines(Path.of("/proc/self/status")).stream()
            .filter(line -> line.startsWith("VmHWM:"))
            .mapToLong(line -> Long.parseLong(line.replaceAll("[^0-9]", "")) / 1024)
            .findFirst().orElse(0);
        return String.format(Locale.ROOT,
            "{\"system\":\"flink\",\"query\":\"%s\",\"events\":%d,\"events_per_second\":%.1f,\"results\":%d,\"checksum\":%s,"
                + "\"p50_ms\":%s,\"p99_ms\":%s,\"memory_mib\":%d}",
            query, events, perSecond, results, Long.toUnsignedString(checksum), latency(0.5), latency(0.99), memory);
    }
}
