-- Days are texts such as 2026-05-01, in UTC; `at` is in milliseconds since 1970.
CREATE TABLE posts (
    id text COLLATE "C" PRIMARY KEY,
    grp text COLLATE "C" NOT NULL,
    day text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    author text NOT NULL,
    version bigint NOT NULL,
    hash text NOT NULL
);

CREATE TABLE versions (
    post text COLLATE "C" NOT NULL REFERENCES posts (id),
    version bigint NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (post, version)
);

-- Versions whose keywords have not been counted.
CREATE TABLE unmapped (
    post text COLLATE "C" NOT NULL REFERENCES posts (id),
    version bigint NOT NULL,
    PRIMARY KEY (post, version)
);

CREATE TABLE pages (
    url text COLLATE "C" PRIMARY KEY,
    etag text,
    modified text,
    next text
);

-- Of the last version of each post that was counted.
CREATE TABLE matches (
    post text COLLATE "C" NOT NULL REFERENCES posts (id),
    keyword text COLLATE "C" NOT NULL,
    grp text COLLATE "C" NOT NULL,
    day text COLLATE "C" NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (post, keyword)
);
CREATE INDEX matches_day ON matches (grp, day);

CREATE TABLE targets (
    day text COLLATE "C" NOT NULL,
    grp text COLLATE "C" NOT NULL,
    keyword text COLLATE "C" NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (day, grp, keyword)
);

CREATE TABLE alerts (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    record text NOT NULL,
    delivered boolean NOT NULL DEFAULT false
);
CREATE INDEX alerts_undelivered ON alerts (number) WHERE NOT delivered;
