package peers;

import java.util.Random;

/** The words that all sides count: 10,000 of them, chosen by Zipf's law, six a sentence, 4,096 sentences in turn. */
public final class Words {
    static final int VOCABULARY = 10_000;
    static final int SENTENCES = 4_096;
    static final int WORDS = 6;

    private Words() {}

    static String[] sentences() {
        double[] sums = new double[VOCABULARY];
        double sum = 0;
        for (int rank = 0; rank < VOCABULARY; rank++) {
            sum += 1.0 / (rank + 1);
            sums[rank] = sum;
        }
        Random random = new Random(1);
        String[] sentences = new String[SENTENCES];
        for (int i = 0; i < SENTENCES; i++) {
            StringBuilder sentence = new StringBuilder();
            for (int word = 0; word < WORDS; word++) {
                int at = java.util.Arrays.binarySearch(sums, random.nextDouble() * sum);
                int rank = Math.min(VOCABULARY - 1, at < 0 ? -at - 1 : at);
                if (word > 0) {
                    sentence.append(' ');
                }
                sentence.append("word-").append(rank);
            }
            sentences[i] = sentence.toString();
        }
        return sentences;
    }
}
