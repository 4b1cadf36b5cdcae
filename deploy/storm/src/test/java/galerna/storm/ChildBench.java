package galerna.storm;

import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.LongAdder;
import java.util.concurrent.locks.LockSupport;
import org.apache.storm.Config;
import org.apache.storm.LocalCluster;
import org.apache.storm.flux.wrappers.bolts.FluxShellBolt;
import org.apache.storm.spout.SpoutOutputCollector;
import org.apache.storm.task.TopologyContext;
import org.apache.storm.topology.BasicOutputCollector;
import org.apache.storm.topology.OutputFieldsDeclarer;
import org.apache.storm.topology.TopologyBuilder;
import org.apache.storm.topology.base.BaseBasicBolt;
import org.apache.storm.topology.base.BaseRichSpout;
import org.apache.storm.tuple.Fields;
import org.apache.storm.tuple.Tuple;
import org.apache.storm.tuple.Values;

/** Numbers through one child of a ShellBolt, in both forms, and through a bolt in Java: how many a second, how long, at what CPU time. */
public final class ChildBench {
    private static final int PENDING = 4096;
    private static final LongAdder ACKED = new LongAdder();
    private static final LongAdder FAILED = new LongAdder();
    /** Tuples a second that the spout emits at most; as many as it can if 0. */
    private static volatile long rate;
    /** How long tuples took, in nanoseconds, by number; as many as fit. */
    private static final long[] TOOK = new long[1 << 20];
    private static final AtomicLong TAKEN = new AtomicLong();

    private ChildBench() {
    }

    public static final class Numbers extends BaseRichSpout {
        private transient SpoutOutputCollector collector;
        private long next;
        private long due;

        @Override
        public void open(Map<String, Object> conf, TopologyContext context, SpoutOutputCollector out) {
            collector = out;
            due = System.nanoTime();
        }

        @Override
        public void nextTuple() {
            long now = System.nanoTime();
            if (rate > 0) {
                if (now < due) {
                    LockSupport.parkNanos(Math.min(due - now, 1_000_000));
                    return;
                }
                due = Math.max(due + 1_000_000_000L / rate, now - 50_000_000);
            }
            next++;
            // Not the number that the child refuses; the id says when it was emitted.
            collector.emit(new Values(next + 100), now);
        }

        @Override
        public void ack(Object emitted) {
            ACKED.increment();
            int at = (int) (TAKEN.getAndIncrement() & (TOOK.length - 1));
            TOOK[at] = System.nanoTime() - (Long) emitted;
        }

        @Override
        public void fail(Object emitted) {
            FAILED.increment();
        }

        @Override
        public void declareOutputFields(OutputFieldsDeclarer declarer) {
            declarer.declare(new Fields("value"));
        }
    }

    /** What the child does, in Java. */
    public static final class Double extends BaseBasicBolt {
        @Override
        public void execute(Tuple tuple, BasicOutputCollector out) {
            long number = tuple.getLong(0);
            if (number == 13) {
                throw new org.apache.storm.topology.FailedException("13 is unlucky");
            }
            if (number % 2 == 1) {
                out.emit("odd", new Values(number));
            }
            out.emit(new Values(number * 2));
        }

        @Override
        public void declareOutputFields(OutputFieldsDeclarer declarer) {
            declarer.declare(new Fields("value"));
            declarer.declareStream("odd", new Fields("value"));
        }
    }

    public static final class Seen extends BaseBasicBolt {
        @Override
        public void execute(Tuple tuple, BasicOutputCollector out) {
            // It is acked by that.
        }

        @Override
        public void declareOutputFields(OutputFieldsDeclarer declarer) {
            // Nothing.
        }
    }

    /** CPU time of this JVM and of its children, in nanoseconds. */
    private static long[] cpu() throws Exception {
        long here = ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
        long there = 0;
        for (ProcessHandle child : ProcessHandle.current().descendants().toList()) {
            Path stat = Path.of("/proc/" + child.pid() + "/stat");
            if (Files.exists(stat)) {
                String text = Files.readString(stat);
                String[] fields = text.substring(text.lastIndexOf(')') + 2).split(" ");
                // In hundredths of a second.
                there += (Long.parseLong(fields[11]) + Long.parseLong(fields[12])) * 10_000_000L;
            }
        }
        return new long[] {here, there};
    }

    private static void measure(LocalCluster cluster, String name, String[] command, boolean messagePack, int seconds)
        throws Exception {
        TopologyBuilder builder = new TopologyBuilder();
        builder.setSpout("numbers", new Numbers(), 1);
        if (command == null) {
            builder.setBolt("double", new Double(), 1).shuffleGrouping("numbers");
        } else {
            FluxShellBolt bolt = new FluxShellBolt(command, new String[] {"value"});
            bolt.setNamedStream("odd", new String[] {"value"});
            builder.setBolt("double", bolt, 1).shuffleGrouping("numbers");
        }
        builder.setBolt("seen", new Seen(), 1).shuffleGrouping("double");
        Config conf = new Config();
        conf.setMaxSpoutPending(PENDING);
        conf.setMessageTimeoutSecs(600);
        conf.put(Config.TOPOLOGY_SHELLBOLT_MAX_PENDING, 1024);
        if (messagePack) {
            conf.put(Config.TOPOLOGY_MULTILANG_SERIALIZER, MessagePackSerializer.class.getName());
        }
        rate = 0;
        long warm = ACKED.sum() + 10_000;
        try (var running = cluster.submitTopology(name, conf, builder.createTopology())) {
            while (ACKED.sum() < warm) {
                Thread.sleep(100);
            }
            Thread.sleep(5_000);
            long[] cpu = cpu();
            long acked = ACKED.sum();
            long began = System.nanoTime();
            Thread.sleep(seconds * 1_000L);
            double took = (System.nanoTime() - began) / 1e9;
            acked = ACKED.sum() - acked;
            long[] after = cpu();
            System.out.printf("%-32s %9d tuples in %7.2fs: %9.0f/s; CPU a tuple: JVM %.1f us, child %.1f us%n", "Storm, " + label(command, messagePack),
                acked, took, acked / took, (after[0] - cpu[0]) / 1e3 / acked, (after[1] - cpu[1]) / 1e3 / acked);
            rate = 1_000;
            Thread.sleep(3_000);
            TAKEN.set(0);
            Thread.sleep(5_000);
            int count = (int) Math.min(TAKEN.get(), TOOK.length);
            long[] sorted = Arrays.copyOf(TOOK, count);
            Arrays.sort(sorted);
            System.out.printf("%-32s at 1000/s: %.2f ms half, %.2f ms 99 of 100 (%d tuples, %d failed)%n", "Storm, " + label(command, messagePack),
                sorted[count / 2] / 1e6, sorted[count * 99 / 100] / 1e6, count, FAILED.sum());
        }
        // The next is not to meet what is left of this one.
        Thread.sleep(3_000);
    }

    private static String label(String[] command, boolean messagePack) {
        return command == null ? "a bolt in Java" : messagePack ? "child, MessagePack" : "child, JSON";
    }

    public static void main(String[] words) throws Exception {
        int seconds = Integer.parseInt(words[0]);
        String[] command = List.of(words).subList(1, words.length).toArray(String[]::new);
        try (LocalCluster cluster = new LocalCluster()) {
            measure(cluster, "json", command, false, seconds);
            measure(cluster, "pack", command, true, seconds);
            measure(cluster, "java", null, false, seconds);
        }
        System.exit(0);
    }
}
