package peers.streams;

import com.google.gson.Gson;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneId;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.functions.FlatMapFunction;
import org.apache.flink.api.common.functions.JoinFunction;
import org.apache.flink.api.common.functions.MapFunction;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichMapFunction;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.ReducingState;
import org.apache.flink.api.common.state.ReducingStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.CheckpointingMode;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.co.KeyedCoProcessFunction;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.SlidingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.triggers.Trigger;
import org.apache.flink.streaming.api.windowing.triggers.TriggerResult;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;
import peers.streams.Nexmark.Bid;
import peers.streams.Nexmark.Event;
import peers.streams.Nexmark.Person;
import peers.streams.Theodolite.Drawn;
import peers.streams.Theodolite.GroupPower;
import peers.streams.Theodolite.HourOfDay;
import peers.streams.Theodolite.PowerRecord;
import peers.streams.Theodolite.Summary;

/** Theodolite's and Nexmark's queries on Flink: QUERY [events=N] [sensors=N] [tasks=N] [rate=N]. See benches/streams. */
public class Streams {
    /** JSON of a reading, with the library that Theodolite uses. */
    public static class ToJson extends RichMapFunction<PowerRecord, String> {
        private transient Gson gson;

        @Override public void open(OpenContext context) {
            gson = new Gson();
        }

        @Override public String map(PowerRecord record) {
            return gson.toJson(record);
        }
    }

    /** Summarises readings. */
    public static class Summarise implements AggregateFunction<PowerRecord, Summary, Summary> {
        @Override public Summary createAccumulator() { return new Summary(); }

        @Override public Summary add(PowerRecord record, Summary summary) {
            summary.add(record.valueInW);
            return summary;
        }

        @Override public Summary getResult(Summary summary) { return summary.copy(); }

        @Override public Summary merge(Summary one, Summary other) { return one.merged(other); }
    }

    /** Says of which sensor and window a summary is. */
    public static class WithWindow extends ProcessWindowFunction<Summary, Drawn, String, TimeWindow> {
        @Override public void process(String key, Context context, Iterable<Summary> values, Collector<Drawn> out) {
            out.collect(new Drawn(key, context.window().getEnd(), values.iterator().next()));
        }
    }

    /** Counts. */
    public static class Count<T> implements AggregateFunction<T, Long, Long> {
        @Override public Long createAccumulator() { return 0L; }

        @Override public Long add(T tuple, Long count) { return count + 1; }

        @Override public Long getResult(Long count) { return count; }

        @Override public Long merge(Long one, Long other) { return one + other; }
    }

    /** An auction with the most bids of a window. */
    public static class HotItem {
        public long end;
        public long auction;
        public long bids;

        public HotItem() {}

        HotItem(long end, long auction, long bids) {
            this.end = end;
            this.auction = auction;
            this.bids = bids;
        }

        long checksum() {
            return Numbers.mix(end) * (auction * 31 + bids);
        }
    }

    /** Says of which auction and window a count is. */
    public static class ToHotItem extends ProcessWindowFunction<Long, HotItem, Long, TimeWindow> {
        @Override public void process(Long auction, Context context, Iterable<Long> counts, Collector<HotItem> out) {
            out.collect(new HotItem(context.window().getEnd(), auction, counts.iterator().next()));
        }
    }

    /** Those with the most bids. */
    public static class Most implements AggregateFunction<HotItem, List<HotItem>, List<HotItem>> {
        @Override public List<HotItem> createAccumulator() { return new ArrayList<>(); }

        @Override public List<HotItem> add(HotItem item, List<HotItem> most) {
            if (!most.isEmpty() && item.bids > most.get(0).bids) {
                most.clear();
            }
            if (most.isEmpty() || item.bids == most.get(0).bids) {
                most.add(item);
            }
            return most;
        }

        @Override public List<HotItem> getResult(List<HotItem> most) { return most; }

        @Override public List<HotItem> merge(List<HotItem> one, List<HotItem> other) {
            other.forEach(item -> add(item, one));
            return one;
        }
    }

    /** Says of which sensor, hour and window a summary is. */
    public static class ToHourOfDay extends ProcessWindowFunction<Summary, HourOfDay, Tuple2<String, Integer>, TimeWindow> {
        @Override
        public void process(Tuple2<String, Integer> key, Context context, Iterable<Summary> values, Collector<HourOfDay> out) {
            HourOfDay hour = new HourOfDay();
            hour.identifier = key.f0;
            hour.hour = key.f1;
            hour.end = context.window().getEnd();
            hour.drawn = values.iterator().next();
            hour.complete = context.currentWatermark() >= context.window().maxTimestamp();
            out.collect(hour);
        }
    }

    /** Fires when a window is complete and, in between, at an interval by the clock, as Theodolite's trigger does. */
    public static class EveryAndAtEnd extends Trigger<PowerRecord, TimeWindow> {
        private final long every;
        private final ReducingStateDescriptor<Long> next =
            new ReducingStateDescriptor<>("next", (one, other) -> Math.min(one, other), Types.LONG);

        EveryAndAtEnd(long millis) {
            this.every = millis;
        }

        @Override
        public TriggerResult onElement(PowerRecord record, long at, TimeWindow window, TriggerContext context) throws Exception {
            ReducingState<Long> timer = context.getPartitionedState(next);
            if (timer.get() == null) {
                context.registerEventTimeTimer(window.maxTimestamp());
                register(context.getCurrentProcessingTime() / every * every + every, timer, context);
            }
            return TriggerResult.CONTINUE;
        }

        private static void register(long at, ReducingState<Long> timer, TriggerContext context) throws Exception {
            timer.add(at);
            context.registerProcessingTimeTimer(at);
        }

        @Override
        public TriggerResult onProcessingTime(long at, TimeWindow window, TriggerContext context) throws Exception {
            ReducingState<Long> timer = context.getPartitionedState(next);
            timer.clear();
            register(at + every, timer, context);
            return TriggerResult.FIRE;
        }

        @Override public TriggerResult onEventTime(long at, TimeWindow window, TriggerContext context) {
            return at == window.maxTimestamp() ? TriggerResult.FIRE : TriggerResult.CONTINUE;
        }

        @Override public void clear(TimeWindow window, TriggerContext context) throws Exception {
            ReducingState<Long> timer = context.getPartitionedState(next);
            if (timer.get() != null) {
                context.deleteProcessingTimeTimer(timer.get());
                timer.clear();
            }
            context.deleteEventTimeTimer(window.maxTimestamp());
        }
    }

    /** Somebody of some states who sells something of a kind. */
    public static class LocalItem {
        public String name;
        public String city;
        public String state;
        public long auction;

        public LocalItem() {}

        LocalItem(Person seller, long auction) {
            this.name = seller.name;
            this.city = seller.city;
            this.state = seller.state;
            this.auction = auction;
        }

        long checksum() {
            return Numbers.mix(name.hashCode() ^ auction) + ((long) city.hashCode() ^ (long) state.hashCode());
        }
    }

    /** Pairs sellers with what they sell, whichever comes first, for ever. */
    public static class LocalItems extends KeyedCoProcessFunction<Long, Person, Tuple2<Long, Long>, LocalItem> {
        private transient ValueState<Person> seller;
        private transient ListState<Long> waiting;

        @Override public void open(OpenContext context) {
            seller = getRuntimeContext().getState(new ValueStateDescriptor<>("seller", pojo(Person.class)));
            waiting = getRuntimeContext().getListState(new ListStateDescriptor<>("waiting", Types.LONG));
        }

        @Override public void processElement1(Person person, Context context, Collector<LocalItem> out) throws Exception {
            seller.update(person);
            for (long auction : waiting.get()) {
                out.collect(new LocalItem(person, auction));
            }
            waiting.clear();
        }

        @Override
        public void processElement2(Tuple2<Long, Long> item, Context context, Collector<LocalItem> out) throws Exception {
            Person known = seller.value();
            if (known != null) {
                out.collect(new LocalItem(known, item.f1));
            } else {
                waiting.add(item.f1);
            }
        }
    }

    /** The bids with the highest price. */
    public static class Highest implements AggregateFunction<HighestBid, List<HighestBid>, List<HighestBid>> {
        @Override public List<HighestBid> createAccumulator() { return new ArrayList<>(); }

        @Override public List<HighestBid> add(HighestBid bid, List<HighestBid> highest) {
            if (!highest.isEmpty() && bid.price > highest.get(0).price) {
                highest.clear();
            }
            if (highest.isEmpty() || bid.price == highest.get(0).price) {
                highest.add(bid);
            }
            return highest;
        }

        @Override public List<HighestBid> getResult(List<HighestBid> highest) { return highest; }

        @Override public List<HighestBid> merge(List<HighestBid> one, List<HighestBid> other) {
            other.forEach(bid -> add(bid, one));
            return one;
        }
    }

    /** What q7 keeps of a bid. */
    public static class HighestBid {
        public long price;
        public long auction;
        public long bidder;
        public long at;

        public HighestBid() {}

        HighestBid(Bid bid) {
            this.price = bid.price;
            this.auction = bid.auction;
            this.bidder = bid.bidder;
            this.at = bid.at;
        }

        long checksum() {
            return Numbers.mix(at ^ auction) * price + bidder;
        }
    }

    /** Somebody who registered, and who put something up for sale in the same window. */
    public static class NewSeller {
        public long person;
        public String name;
        public long end;

        public NewSeller() {}

        NewSeller(long person, String name, long end) {
            this.person = person;
            this.name = name;
            this.end = end;
        }

        long checksum() {
            return Numbers.mix(end ^ person) + name.hashCode();
        }
    }

    private static DataStream<Person> persons(DataStream<Event> events) {
        return events.flatMap((FlatMapFunction<Event, Person>) (event, out) -> {
            if (event.person != null) {
                out.collect(event.person);
            }
        }).returns(pojo(Person.class));
    }

    /** Seller and number of each auction, or of those of a category. */
    private static DataStream<Tuple2<Long, Long>> items(DataStream<Event> events, long category) {
        return events.flatMap((FlatMapFunction<Event, Tuple2<Long, Long>>) (event, out) -> {
            if (event.auction != null && (category == 0 || event.auction.category == category)) {
                out.collect(Tuple2.of(event.auction.seller, event.auction.id));
            }
        }).returns(Types.TUPLE(Types.LONG, Types.LONG));
    }

    static <T> TypeInformation<T> pojo(Class<T> of) {
        TypeInformation<T> type = TypeInformation.of(of);
        if (!(type instanceof org.apache.flink.api.java.typeutils.PojoTypeInfo)) {
            throw new IllegalStateException(of + " would be serialised generically, which is slow");
        }
        return type;
    }

    private static DataStream<PowerRecord> records(StreamExecutionEnvironment env) {
        return records(env, Measured.sensors);
    }

    private static DataStream<PowerRecord> records(StreamExecutionEnvironment env, long sensors) {
        return env.fromSource(
            Measured.source(n -> Theodolite.record(n, sensors, Measured.first(Theodolite.FIRST)), pojo(PowerRecord.class)),
            WatermarkStrategy.<PowerRecord>forMonotonousTimestamps().withTimestampAssigner((record, before) -> record.timestamp),
            "records");
    }

    private static DataStream<Event> events(StreamExecutionEnvironment env, boolean timed) {
        WatermarkStrategy<Event> strategy = timed
            ? WatermarkStrategy.<Event>forMonotonousTimestamps().withTimestampAssigner((event, before) -> event.at())
            : WatermarkStrategy.noWatermarks();
        return env.fromSource(Measured.source(Nexmark::event, pojo(Event.class)), strategy, "events");
    }

    private static DataStream<Bid> bids(DataStream<Event> events) {
        return events.flatMap((FlatMapFunction<Event, Bid>) (event, out) -> {
            if (event.bid != null) {
                out.collect(event.bid);
            }
        }).returns(pojo(Bid.class));
    }

    private static void declare(String query, StreamExecutionEnvironment env) {
        switch (query) {
            case "uc1" -> records(env).map(new ToJson()).sinkTo(new Measured.Tally<>(String::length, null));
            case "uc2" -> records(env).keyBy(record -> record.identifier)
                .window(TumblingEventTimeWindows.of(Duration.ofMinutes(1)))
                .aggregate(new Summarise(), new WithWindow(), pojo(Summary.class), pojo(Summary.class), pojo(Drawn.class))
                .sinkTo(new Measured.Tally<>(Drawn::checksum, drawn -> drawn.end));
            case "uc3" -> {
                ZoneId zone = ZoneId.of("Europe/Paris");
                records(env)
                    .keyBy(record -> Tuple2.of(record.identifier, Instant.ofEpochMilli(record.timestamp).atZone(zone).getHour()),
                        Types.TUPLE(Types.STRING, Types.INT))
                    .window(SlidingEventTimeWindows.of(Duration.ofDays(30), Duration.ofDays(1)))
                    .trigger(new EveryAndAtEnd(15_000))
                    .aggregate(new Summarise(), new ToHourOfDay(), pojo(Summary.class), pojo(Summary.class), pojo(HourOfDay.class))
                    .sinkTo(new Measured.Tally<>(HourOfDay::checksum, null, hour -> hour.complete));
            }
            case "uc4" -> {
                int levels = Theodolite.levelsOver(Measured.sensors);
                Groups.powers(records(env, 1L << 2 * levels), levels)
                    .sinkTo(new Measured.Tally<>(GroupPower::checksum, power -> power.end));
            }
            case "q0" -> events(env, false).map((MapFunction<Event, Event>) event -> event).returns(pojo(Event.class))
                .sinkTo(new Measured.Tally<>(Event::checksum, null));
            case "q1" -> bids(events(env, false)).map((MapFunction<Bid, Bid>) bid -> {
                    Bid euros = new Bid();
                    euros.auction = bid.auction;
                    euros.bidder = bid.bidder;
                    euros.price = bid.price * 908 / 1_000;
                    euros.channel = bid.channel;
                    euros.url = bid.url;
                    euros.at = bid.at;
                    euros.extra = bid.extra;
                    return euros;
                }).returns(pojo(Bid.class))
                .sinkTo(new Measured.Tally<>(bid -> bid.price, null));
            case "q2" -> bids(events(env, false)).filter(bid -> bid.auction % 123 == 0)
                .map((MapFunction<Bid, Tuple2<Long, Long>>) bid -> Tuple2.of(bid.auction, bid.price))
                .returns(Types.TUPLE(Types.LONG, Types.LONG))
                .sinkTo(new Measured.Tally<>(bid -> bid.f0 * 31 + bid.f1, null));
            case "q3" -> {
                DataStream<Event> events = events(env, false);
                List<String> states = List.of("OR", "ID", "CA");
                persons(events).filter(person -> states.contains(person.state)).keyBy(person -> person.id)
                    .connect(items(events, 10).keyBy(item -> item.f0))
                    .process(new LocalItems()).returns(pojo(LocalItem.class))
                    .sinkTo(new Measured.Tally<>(LocalItem::checksum, null));
            }
            case "q7" -> bids(events(env, true)).map((MapFunction<Bid, HighestBid>) HighestBid::new).returns(pojo(HighestBid.class))
                .windowAll(TumblingEventTimeWindows.of(Duration.ofSeconds(10)))
                .aggregate(new Highest(), Types.LIST(pojo(HighestBid.class)), Types.LIST(pojo(HighestBid.class)))
                .flatMap((FlatMapFunction<List<HighestBid>, HighestBid>) (highest, out) -> highest.forEach(out::collect))
                .returns(pojo(HighestBid.class))
                .sinkTo(new Measured.Tally<>(HighestBid::checksum, bid -> (bid.at / 10_000 + 1) * 10_000));
            case "q8" -> {
                DataStream<Event> events = events(env, true);
                persons(events).join(items(events, 0)).where(person -> person.id).equalTo(item -> item.f0)
                    .window(TumblingEventTimeWindows.of(Duration.ofSeconds(10)))
                    .apply((JoinFunction<Person, Tuple2<Long, Long>, NewSeller>) (person, item) ->
                        new NewSeller(person.id, person.name, (person.at / 10_000 + 1) * 10_000), pojo(NewSeller.class))
                    .sinkTo(new Measured.Tally<>(NewSeller::checksum, seller -> seller.end));
            }
            case "q5" -> events(env, true)
                .flatMap((FlatMapFunction<Event, Long>) (event, out) -> {
                    if (event.bid != null) {
                        out.collect(event.bid.auction);
                    }
                }).returns(Types.LONG)
                .keyBy(auction -> auction)
                .window(SlidingEventTimeWindows.of(Duration.ofSeconds(10), Duration.ofSeconds(2)))
                .aggregate(new Count<Long>(), new ToHotItem(), Types.LONG, Types.LONG, pojo(HotItem.class))
                .windowAll(TumblingEventTimeWindows.of(Duration.ofSeconds(2)))
                .aggregate(new Most(), Types.LIST(pojo(HotItem.class)), Types.LIST(pojo(HotItem.class)))
                .flatMap((FlatMapFunction<List<HotItem>, HotItem>) (most, out) -> most.forEach(out::collect))
                .returns(pojo(HotItem.class))
                .sinkTo(new Measured.Tally<>(HotItem::checksum, item -> item.end));
            default -> throw new IllegalArgumentException("there is no query " + query);
        }
    }

    public static void main(String[] args) throws Exception {
        for (int at = 1; at < args.length; at++) {
            String[] parts = args[at].split("=", 2);
            long value = Long.parseLong(parts[1]);
            switch (parts[0]) {
                case "events" -> Measured.events = value;
                case "sensors" -> Measured.sensors = value;
                case "tasks" -> Measured.tasks = (int) value;
                case "rate" -> Measured.rate = value;
                default -> throw new IllegalArgumentException("there is no " + parts[0]);
            }
        }
        if (Measured.events % Measured.tasks != 0) {
            throw new IllegalArgumentException("the events cannot be shared out evenly over " + Measured.tasks + " tasks");
        }
        Path checkpoints = Files.createTempDirectory("flink-checkpoints");
        Configuration conf = new Configuration();
        conf.setString("taskmanager.numberOfTaskSlots", "8");
        conf.setString("taskmanager.memory.network.max", "256m");
        conf.setString("taskmanager.memory.network.min", "256m");
        conf.setString("state.backend.type", "hashmap");
        conf.setString("execution.checkpointing.storage", "filesystem");
        conf.setString("execution.checkpointing.dir", checkpoints.toUri().toString());
        StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment(conf);
        env.setParallelism(Measured.tasks);
        env.getConfig().enableObjectReuse();
        env.enableCheckpointing(1000, CheckpointingMode.EXACTLY_ONCE);
        declare(args[0], env);
        env.execute(args[0]);
        System.out.println(Measured.report(args[0]));
        System.out.flush();
        try (var files = Files.walk(checkpoints)) {
            files.sorted(java.util.Comparator.reverseOrder()).forEach(file -> file.toFile().delete());
        }
        Runtime.getRuntime().halt(0);
    }
}
