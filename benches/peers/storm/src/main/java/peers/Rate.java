package peers;

import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.LongAdder;
import org.apache.storm.Config;
import org.apache.storm.LocalCluster;
import org.apache.storm.spout.SpoutOutputCollector;
import org.apache.storm.task.OutputCollector;
import org.apache.storm.task.TopologyContext;
import org.apache.storm.topology.BasicOutputCollector;
import org.apache.storm.topology.OutputFieldsDeclarer;
import org.apache.storm.topology.TopologyBuilder;
import org.apache.storm.topology.base.BaseBasicBolt;
import org.apache.storm.topology.base.BaseRichSpout;
import org.apache.storm.tuple.Fields;
import org.apache.storm.tuple.Tuple;
import org.apache.storm.tuple.Values;

/** Acked tuples a second of Apache Storm in one process: `sink`, `identity`, `words`, `bytes-100` or `bytes-1024`. */
public class Rate {
    static final LongAdder ACKED = new LongAdder();
    static final LongAdder WORDS = new LongAdder();

    public static class Numbers extends BaseRichSpout {
        private SpoutOutputCollector out;
        private long next;

        @Override public void open(Map<String, Object> conf, TopologyContext context, SpoutOutputCollector out) { this.out = out; }
        @Override public void nextTuple() { next++; out.emit(new Values(next), next); }
        @Override public void ack(Object id) { ACKED.increment(); }
        @Override public void declareOutputFields(OutputFieldsDeclarer d) { d.declare(new Fields("n")); }
    }

    /** Sentences, each a string of its own. */
    public static class Sentences extends BaseRichSpout {
        private transient String[] lines;
        private SpoutOutputCollector out;
        private long next;

        @Override public void open(Map<String, Object> conf, TopologyContext context, SpoutOutputCollector out) { this.out = out; lines = Words.sentences(); }
        @Override public void nextTuple() { next++; out.emit(new Values(new String(lines[(int) (next % lines.length)])), next); }
        @Override public void ack(Object id) { ACKED.increment(); }
        @Override public void declareOutputFields(OutputFieldsDeclarer d) { d.declare(new Fields("line")); }
    }

    /** So many bytes of their own. */
    public static class Payloads extends BaseRichSpout {
        private final int size;
        private SpoutOutputCollector out;
        private long next;

        Payloads(int size) { this.size = size; }
        @Override public void open(Map<String, Object> conf, TopologyContext context, SpoutOutputCollector out) { this.out = out; }
        @Override public void nextTuple() {
            next++;
            byte[] bytes = new byte[size];
            java.util.Arrays.fill(bytes, (byte) next);
            out.emit(new Values((Object) bytes), next);
        }
        @Override public void ack(Object id) { ACKED.increment(); }
        @Override public void declareOutputFields(OutputFieldsDeclarer d) { d.declare(new Fields("n")); }
    }

    public static class Ignore extends BaseBasicBolt {
        private long bytes;
        @Override public void execute(Tuple t, BasicOutputCollector out) { bytes += t.getBinary(0).length; }
        @Override public void declareOutputFields(OutputFieldsDeclarer d) { }
    }

    public static class Identity extends BaseBasicBolt {
        @Override public void execute(Tuple t, BasicOutputCollector out) { out.emit(new Values(t.getValue(0))); }
        @Override public void declareOutputFields(OutputFieldsDeclarer d) { d.declare(new Fields("n")); }
    }

    public static class Split extends BaseBasicBolt {
        @Override public void execute(Tuple t, BasicOutputCollector out) {
            for (String word : t.getString(0).split(" ")) { out.emit(new Values(word)); }
        }
        @Override public void declareOutputFields(OutputFieldsDeclarer d) { d.declare(new Fields("word")); }
    }

    public static class Count extends BaseBasicBolt {
        private final Map<String, Long> counts = new java.util.HashMap<>();
        @Override public void execute(Tuple t, BasicOutputCollector out) { counts.merge(t.getString(0), 1L, Long::sum); WORDS.increment(); }
        @Override public void declareOutputFields(OutputFieldsDeclarer d) { }
    }

    public static class Sink extends BaseBasicBolt {
        private long sum;
        @Override public void execute(Tuple t, BasicOutputCollector out) { sum += t.getLong(0); }
        @Override public void declareOutputFields(OutputFieldsDeclarer d) { }
    }

    public static void main(String[] args) throws Exception {
        TopologyBuilder b = new TopologyBuilder();
        switch (args[0]) {
            case "sink" -> { b.setSpout("numbers", new Numbers(), 1); b.setBolt("sink", new Sink(), 1).localOrShuffleGrouping("numbers"); }
            case "identity" -> {
                b.setSpout("numbers", new Numbers(), 1);
                b.setBolt("identity", new Identity(), 1).localOrShuffleGrouping("numbers");
                b.setBolt("sink", new Sink(), 1).localOrShuffleGrouping("identity");
            }
            case "bytes-100", "bytes-1024" -> {
                b.setSpout("payloads", new Payloads(Integer.parseInt(args[0].substring("bytes-".length()))), 1);
                b.setBolt("identity", new Identity(), 1).localOrShuffleGrouping("payloads");
                b.setBolt("sink", new Ignore(), 1).localOrShuffleGrouping("identity");
            }
            case "words" -> {
                b.setSpout("sentences", new Sentences(), 1);
                b.setBolt("split", new Split(), 1).localOrShuffleGrouping("sentences");
                b.setBolt("count", new Count(), 1).fieldsGrouping("split", new Fields("word"));
            }
            default -> throw new IllegalArgumentException("sink, identity, words, bytes-100 or bytes-1024");
        }
        Config conf = new Config();
        conf.setNumWorkers(1);
        conf.setNumAckers(1);
        conf.setMaxSpoutPending(5000);
        conf.put(Config.TOPOLOGY_PRODUCER_BATCH_SIZE, 64);
        conf.put(Config.TOPOLOGY_DISABLE_LOADAWARE_MESSAGING, true);
        conf.put(Config.TOPOLOGY_STATS_SAMPLE_RATE, 0.001);
        conf.put(Config.TOPOLOGY_BACKPRESSURE_WAIT_STRATEGY, "org.apache.storm.policy.WaitStrategyProgressive");
        int seconds = args.length > 1 ? Integer.parseInt(args[1]) : 10;
        try (LocalCluster cluster = new LocalCluster(); var running = cluster.submitTopology("rate", conf, b.createTopology())) {
            Thread.sleep(15_000);
            long acked = ACKED.sum(), words = WORDS.sum(), start = System.nanoTime();
            Thread.sleep(seconds * 1000L);
            double s = (System.nanoTime() - start) / 1e9;
            System.out.printf("RESULT storm %s %.0f%n", args[0], args[0].equals("words") ? (WORDS.sum() - words) / s : (ACKED.sum() - acked) / s);
            System.out.flush();
            Runtime.getRuntime().halt(0);
        }
    }
}
