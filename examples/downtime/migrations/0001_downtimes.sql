-- Times are milliseconds since 1970, in UTC; the view at the end has them as timestamps.
CREATE TABLE lines (
    name text COLLATE "C" PRIMARY KEY,
    state text NOT NULL,
    since bigint NOT NULL,
    cause text NOT NULL,
    began_before boolean NOT NULL,
    seen bigint NOT NULL,
    heard bigint NOT NULL,
    beats boolean NOT NULL,
    told text NOT NULL,
    told_since bigint NOT NULL,
    held bigint NOT NULL
);
CREATE INDEX lines_untold ON lines (since) WHERE told <> state;
CREATE INDEX lines_beating ON lines (heard) WHERE beats AND state = 'up';

CREATE TABLE events (
    line text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    state text NOT NULL,
    cause text NOT NULL,
    PRIMARY KEY (line, at)
);

CREATE TABLE downtimes (
    line text COLLATE "C" NOT NULL,
    start bigint NOT NULL,
    ended bigint,
    cause text NOT NULL,
    began_before boolean NOT NULL,
    PRIMARY KEY (line, start)
);
CREATE INDEX downtimes_start ON downtimes (start, line);

-- `due`: not to be told before. `until`: somebody tells it until then.
CREATE TABLE notices (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    line text COLLATE "C" NOT NULL,
    kind text NOT NULL,
    at bigint NOT NULL,
    down_since bigint NOT NULL,
    began_before boolean NOT NULL,
    told boolean NOT NULL DEFAULT false,
    tries bigint NOT NULL DEFAULT 0,
    due bigint NOT NULL DEFAULT 0,
    until bigint NOT NULL DEFAULT 0,
    holder text,
    UNIQUE (line, kind, at)
);
CREATE INDEX notices_untold ON notices (line, seq) WHERE NOT told;

CREATE TABLE deliveries (
    id text COLLATE "C" PRIMARY KEY,
    notice bigint NOT NULL REFERENCES notices (seq),
    recipient text NOT NULL,
    status text NOT NULL,
    reason text
);
CREATE INDEX deliveries_notice ON deliveries (notice);
CREATE INDEX deliveries_not_delivered ON deliveries (notice) WHERE status <> 'delivered';

CREATE VIEW downtime_times AS
SELECT
    line,
    to_timestamp(start / 1000.0) AS started_at,
    to_timestamp(ended / 1000.0) AS ended_at,
    to_timestamp(ended / 1000.0) - to_timestamp(start / 1000.0) AS duration,
    cause,
    began_before
FROM downtimes;
