package peers.streams;

import static peers.streams.Numbers.below;

/** The events of the auction house, as the crate benches/streams makes them: see its nexmark/generator.rs. */
final class Nexmark {
    private Nexmark() {}

    static final long FIRST = 1_600_000_000_000L;

    /** Somebody who registers. */
    public static class Person {
        public long id;
        public String name;
        public String email;
        public String creditCard;
        public String city;
        public String state;
        public long at;
        public String extra;
    }

    /** Something for sale. */
    public static class Auction {
        public long id;
        public String item;
        public String description;
        public long initialBid;
        public long reserve;
        public long at;
        public long expires;
        public long seller;
        public long category;
        public String extra;
    }

    /** An offer. */
    public static class Bid {
        public long auction;
        public long bidder;
        public long price;
        public String channel;
        public String url;
        public long at;
        public String extra;

        public Bid() {}
    }

    /** One of the three. */
    public static class Event {
        public Person person;
        public Auction auction;
        public Bid bid;

        long at() {
            return bid != null ? bid.at : auction != null ? auction.at : person.at;
        }

        long checksum() {
            return bid != null ? bid.price : auction != null ? auction.id : person.id;
        }
    }

    private static final String[] FIRST_NAMES =
        {"Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"};
    private static final String[] LAST_NAMES =
        {"Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"};
    private static final String[] CITIES = {"Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond",
        "Seattle", "Kent", "Cheyenne"};
    private static final String[] STATES = {"AZ", "CA", "ID", "OR", "WA", "WY"};
    private static final String[] CHANNELS = {"Google", "Facebook", "Baidu", "Apple"};
    private static final String FILLER = "etaoinshrdlcumwfgypbvkjxqz".repeat(12);
    private static final long[] DIGITS = {1, 10, 100, 1_000, 10_000, 100_000};
    private static final long FIRST_ID = 1_000;

    private static String oneOf(long n, int field, String[] texts) {
        return new String(texts[(int) below(n, field, texts.length)]);
    }

    private static String filler(long n, int field, long least, long more) {
        return FILLER.substring(0, (int) (least + below(n, field, more)));
    }

    private static long hotOrRecent(long n, int field, long count, long hot, long recent) {
        long last = FIRST_ID + count - 1;
        return below(n, field, hot) > 0 ? last / 100 * 100 : last - below(n, field + 1, Math.min(count, recent));
    }

    private static long price(long n, int field) {
        return (100 + below(n, field + 1, 900)) * DIGITS[(int) below(n, field, 6)];
    }

    private static String digits(long number) {
        String digits = Long.toString(number);
        return "0".repeat(16 - digits.length()) + digits;
    }

    /** Event number n. */
    static Event event(long n) {
        long epoch = n / 50;
        long place = n % 50;
        long at = FIRST + n / 10;
        long persons = epoch + 1;
        long auctions = epoch * 3 + Math.min(place, 3);
        Event event = new Event();
        if (place == 0) {
            Person person = new Person();
            person.id = FIRST_ID + epoch;
            person.name = oneOf(n, 0, FIRST_NAMES) + " " + oneOf(n, 1, LAST_NAMES);
            person.email = filler(n, 2, 5, 10) + "@example.com";
            person.creditCard = digits(below(n, 3, 10_000_000_000_000_000L));
            person.city = oneOf(n, 4, CITIES);
            person.state = oneOf(n, 5, STATES);
            person.at = at;
            person.extra = filler(n, 6, 80, 40);
            event.person = person;
        } else if (place <= 3) {
            Auction auction = new Auction();
            auction.id = FIRST_ID + auctions - 1;
            auction.item = filler(n, 2, 10, 20);
            auction.description = filler(n, 3, 50, 100);
            auction.initialBid = price(n, 0);
            auction.reserve = auction.initialBid + price(n, 4);
            auction.at = at;
            auction.expires = at + 1 + below(n, 6, 333);
            auction.seller = hotOrRecent(n, 7, persons, 4, 1_000);
            auction.category = 10 + below(n, 9, 5);
            auction.extra = filler(n, 10, 150, 100);
            event.auction = auction;
        } else {
            Bid bid = new Bid();
            bid.auction = hotOrRecent(n, 0, auctions, 2, 100);
            bid.bidder = hotOrRecent(n, 2, persons, 4, 1_000);
            bid.price = price(n, 5);
            bid.channel = oneOf(n, 4, CHANNELS);
            bid.url = "https://www.example.com/" + bid.channel + "/item.htm?query=1";
            bid.at = at;
            bid.extra = filler(n, 7, 20, 20);
            event.bid = bid;
        }
        return event;
    }
}
