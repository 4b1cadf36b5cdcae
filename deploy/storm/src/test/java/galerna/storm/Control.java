package galerna.storm;

import java.util.Map;
import org.apache.storm.generated.KillOptions;
import org.apache.storm.generated.Nimbus;
import org.apache.storm.generated.RebalanceOptions;
import org.apache.storm.utils.NimbusClient;
import org.apache.storm.utils.Utils;

/** Asks Nimbus for what {@code storm list}, {@code storm rebalance} and {@code storm kill} do. */
public final class Control {
    private Control() {
    }

    public static void main(String[] words) throws Exception {
        Map<String, Object> conf = Utils.readStormConfig();
        try (NimbusClient client = NimbusClient.Builder.withConf(conf).build()) {
            Nimbus.Iface nimbus = client.getClient();
            switch (words[0]) {
                case "supervisors" -> System.out.println(nimbus.getClusterInfo().get_supervisors_size());
                case "list" -> nimbus.getClusterInfo().get_topologies().forEach(topology ->
                    System.out.println(topology.get_name() + " " + topology.get_status() + ", workers: "
                        + topology.get_num_workers() + ", tasks: " + topology.get_num_tasks()));
                case "rebalance" -> {
                    RebalanceOptions options = new RebalanceOptions();
                    options.set_wait_secs(0);
                    options.set_num_workers(Integer.parseInt(words[2]));
                    nimbus.rebalance(words[1], options);
                }
                case "kill" -> {
                    KillOptions options = new KillOptions();
                    options.set_wait_secs(0);
                    nimbus.killTopologyWithOpts(words[1], options);
                }
                default -> throw new IllegalArgumentException(
                    "`" + words[0] + "`: say supervisors, list, rebalance NAME WORKERS or kill NAME");
            }
        }
    }
}
