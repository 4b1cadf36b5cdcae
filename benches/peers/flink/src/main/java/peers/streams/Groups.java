package peers.streams;

import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.ExecutionConfig;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.functions.FlatMapFunction;
import org.apache.flink.api.common.functions.MapFunction;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.WindowAssigner;
import org.apache.flink.streaming.api.windowing.triggers.EventTimeTrigger;
import org.apache.flink.streaming.api.windowing.triggers.Trigger;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;
import peers.streams.Theodolite.GroupPower;
import peers.streams.Theodolite.Member;
import peers.streams.Theodolite.PowerRecord;

/** UC4 with a window for each level of groups, as galerna_streams::theodolite::uc4_unrolled. */
final class Groups {
    private Groups() {}

    private static final long PERIOD = 5_000;

    /** Windows by what a reading says of itself: what comes out of a window has the last millisecond of it as its time in Flink. */
    public static class ByOwnTime extends WindowAssigner<Object, TimeWindow> {
        @Override
        public Collection<TimeWindow> assignWindows(Object member, long timestamp, WindowAssignerContext context) {
            long start = Math.floorDiv(((Member) member).at, PERIOD) * PERIOD;
            return List.of(new TimeWindow(start, start + PERIOD));
        }

        @Override public Trigger<Object, TimeWindow> getDefaultTrigger() { return EventTimeTrigger.create(); }

        @Override public TypeSerializer<TimeWindow> getWindowSerializer(ExecutionConfig config) {
            return new TimeWindow.Serializer();
        }

        @Override public boolean isEventTime() { return true; }
    }

    /** The last reading of each member. */
    public static class Latest
        implements AggregateFunction<Member, Map<String, Tuple2<Long, Double>>, Map<String, Tuple2<Long, Double>>> {
        @Override public Map<String, Tuple2<Long, Double>> createAccumulator() { return new HashMap<>(); }

        private static void take(Map<String, Tuple2<Long, Double>> members, String child, long at, double watts) {
            Tuple2<Long, Double> latest = members.get(child);
            if (latest == null || latest.f0 <= at) {
                members.put(child, Tuple2.of(at, watts));
            }
        }

        @Override
        public Map<String, Tuple2<Long, Double>> add(Member member, Map<String, Tuple2<Long, Double>> members) {
            take(members, member.child, member.at, member.watts);
            return members;
        }

        @Override public Map<String, Tuple2<Long, Double>> getResult(Map<String, Tuple2<Long, Double>> members) { return members; }

        @Override
        public Map<String, Tuple2<Long, Double>> merge(
            Map<String, Tuple2<Long, Double>> one, Map<String, Tuple2<Long, Double>> other) {
            other.forEach((child, latest) -> take(one, child, latest.f0, latest.f1));
            return one;
        }
    }

    /** Adds up what the members of a group drew. */
    public static class Power extends ProcessWindowFunction<Map<String, Tuple2<Long, Double>>, GroupPower, String, TimeWindow> {
        @Override
        public void process(
            String group, Context context, Iterable<Map<String, Tuple2<Long, Double>>> values, Collector<GroupPower> out) {
            GroupPower power = new GroupPower();
            power.group = group;
            power.end = context.window().getEnd();
            for (Tuple2<Long, Double> latest : values.iterator().next().values()) {
                power.count += 1;
                power.sumInW += latest.f1;
            }
            power.averageInW = power.sumInW / power.count;
            out.collect(power);
        }
    }

    /** What the groups of all levels draw. */
    static DataStream<GroupPower> powers(DataStream<PowerRecord> readings, int levels) {
        HashMap<String, List<String>> parents = Theodolite.tree(levels);
        TypeInformation<Map<String, Tuple2<Long, Double>>> members = Types.MAP(Types.STRING, Types.TUPLE(Types.LONG, Types.DOUBLE));
        DataStream<GroupPower> all = null;
        for (int level = levels - 1; level >= 0; level--) {
            DataStream<GroupPower> ofLevel = readings
                .flatMap((FlatMapFunction<PowerRecord, Member>) (record, out) -> {
                    for (String group : parents.getOrDefault(record.identifier, List.of())) {
                        out.collect(new Member(group, record));
                    }
                }).returns(Streams.pojo(Member.class))
                .keyBy(member -> member.group)
                .window(new ByOwnTime())
                .aggregate(new Latest(), new Power(), members, members, Streams.pojo(GroupPower.class));
            readings = ofLevel.map((MapFunction<GroupPower, PowerRecord>) GroupPower::reading).returns(Streams.pojo(PowerRecord.class));
            all = all == null ? ofLevel : all.union(ofLevel);
        }
        return all;
    }
}
