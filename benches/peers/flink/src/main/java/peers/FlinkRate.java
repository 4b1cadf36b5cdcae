package peers;

import java.util.concurrent.atomic.LongAdder;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.FlatMapFunction;
import org.apache.flink.api.common.functions.MapFunction;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.datagen.source.DataGeneratorSource;
import org.apache.flink.connector.datagen.source.GeneratorFunction;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.streaming.api.CheckpointingMode;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/** Tuples a second of Apache Flink in one process, checkpointed exactly once each second: see benches/peers/README.md. */
public class FlinkRate {
    static final LongAdder DONE = new LongAdder();

    /** Counts what reaches it, in steps, so that counting costs little. */
    public static class CountingSink<T> implements Sink<T> {
        @Override public SinkWriter<T> createWriter(WriterInitContext context) {
            return new SinkWriter<>() {
                private long seen;

                @Override public void write(T value, Context context) {
                    if ((++seen & 1023) == 0) {
                        DONE.add(1024);
                    }
                }

                @Override public void flush(boolean end) {}

                @Override public void close() {}
            };
        }
    }

    /** A running count of each word. */
    public static class Count extends KeyedProcessFunction<String, String, Long> {
        private transient ValueState<Long> count;

        @Override public void open(OpenContext context) {
            count = getRuntimeContext().getState(new ValueStateDescriptor<>("count", Types.LONG));
        }

        @Override public void processElement(String word, Context context, Collector<Long> out) throws Exception {
            Long before = count.value();
            long now = before == null ? 1 : before + 1;
            count.update(now);
            out.collect(now);
        }
    }

    public static void main(String[] args) throws Exception {
        String kase = args[0];
        int seconds = Integer.parseInt(args[1]);
        Configuration conf = new Configuration();
        conf.setString("taskmanager.numberOfTaskSlots", "8");
        conf.setString("taskmanager.memory.network.max", "256m");
        conf.setString("taskmanager.memory.network.min", "256m");
        StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment(conf);
        env.setParallelism(1);
        env.getConfig().enableObjectReuse();
        env.enableCheckpointing(1000, CheckpointingMode.EXACTLY_ONCE);
        switch (kase) {
            case "sink", "sink-unchained", "identity" -> {
                DataStream<Long> numbers = env.fromSource(
                    new DataGeneratorSource<>((GeneratorFunction<Long, Long>) n -> n, Long.MAX_VALUE, Types.LONG),
                    WatermarkStrategy.noWatermarks(), "numbers");
                if (!kase.equals("sink")) {
                    env.disableOperatorChaining();
                }
                if (kase.equals("identity")) {
                    numbers = numbers.map((MapFunction<Long, Long>) n -> n).returns(Types.LONG);
                }
                numbers.sinkTo(new CountingSink<>());
            }
            case "bytes-100", "bytes-1024" -> {
                int size = Integer.parseInt(kase.substring("bytes-".length()));
                env.disableOperatorChaining();
                env.fromSource(new DataGeneratorSource<>(new Payloads(size), Long.MAX_VALUE, PAYLOAD),
                        WatermarkStrategy.noWatermarks(), "payloads")
                    .map((MapFunction<byte[], byte[]>) bytes -> bytes).returns(PAYLOAD)
                    .sinkTo(new CountingSink<>());
            }
            case "words" -> {
                DataStream<String> lines = env.fromSource(
                    new DataGeneratorSource<>(new Lines(), Long.MAX_VALUE, Types.STRING),
                    WatermarkStrategy.noWatermarks(), "sentences");
                lines.flatMap((FlatMapFunction<String, String>) (line, out) -> {
                        int from = 0;
                        for (int at = line.indexOf(' '); at >= 0; at = line.indexOf(' ', from)) {
                            out.collect(line.substring(from, at));
                            from = at + 1;
                        }
                        out.collect(line.substring(from));
                    }).returns(Types.STRING)
                    .keyBy(word -> word).process(new Count()).setParallelism(2)
                    .sinkTo(new CountingSink<>()).setParallelism(2);
            }
            default -> throw new IllegalArgumentException("sink, sink-unchained, identity, words, bytes-100 or bytes-1024");
        }
        JobClient job = env.executeAsync(kase);
        Thread.sleep(10_000);
        long before = DONE.sum();
        long start = System.nanoTime();
        Thread.sleep(seconds * 1000L);
        double took = (System.nanoTime() - start) / 1e9;
        System.out.printf("RESULT flink %s %.0f%n", kase, (DONE.sum() - before) / took);
        System.out.flush();
        job.cancel();
        Runtime.getRuntime().halt(0);
    }

    static final TypeInformation<byte[]> PAYLOAD = PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO;

    /** So many bytes of their own. */
    public static class Payloads implements GeneratorFunction<Long, byte[]> {
        private final int size;

        Payloads(int size) { this.size = size; }

        @Override public byte[] map(Long n) {
            byte[] bytes = new byte[size];
            java.util.Arrays.fill(bytes, n.byteValue());
            return bytes;
        }
    }

    /** A sentence, as a string of its own. */
    public static class Lines implements GeneratorFunction<Long, String> {
        private transient String[] sentences;

        @Override public String map(Long n) {
            if (sentences == null) {
                sentences = Words.sentences();
            }
            return new String(sentences[(int) (n % sentences.length)]);
        }
    }
}
