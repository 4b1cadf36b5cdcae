package galerna.storm;

import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.storm.Config;
import org.apache.storm.LocalCluster;
import org.apache.storm.flux.FluxBuilder;
import org.apache.storm.flux.model.ExecutionContext;
import org.apache.storm.flux.model.TopologyDef;
import org.apache.storm.flux.parser.FluxParser;

/** Runs Flux files on a cluster within this JVM until its input ends. */
public final class LocalRun {
    private LocalRun() {
    }

    public static void main(String[] files) throws Exception {
        try (LocalCluster cluster = new LocalCluster()) {
            List<AutoCloseable> running = new ArrayList<>();
            for (String file : files) {
                TopologyDef definition = FluxParser.parseFile(file, false, true, new Properties(), false);
                Config config = FluxBuilder.buildConfig(definition);
                var topology = FluxBuilder.buildTopology(new ExecutionContext(definition, config));
                running.add(cluster.submitTopology(definition.getName(), config, topology));
                System.out.println("submitted " + definition.getName());
            }
            while (System.in.read() >= 0) {
                // Only its end is waited for.
            }
            for (AutoCloseable topology : running) {
                topology.close();
            }
        }
        System.exit(0);
    }
}
