#include "store/schema.h"

namespace temper::store {

// Arrays are little-endian and unpadded: i32 ids, f32 logp, u32 versions, u8 loss_mask. SQLite has
// no page checksums, so each rollout carries its own CRC (store/rows.h says over what).
const char* const kSchemaSql = R"sql(
CREATE TABLE run (
  name           TEXT    NOT NULL,
  temper_version TEXT    NOT NULL,
  numerics       TEXT    NOT NULL,
  config_json    TEXT    NOT NULL,
  incarnation    INTEGER NOT NULL,   -- resumes so far
  created_ms     INTEGER NOT NULL    -- Unix time
) STRICT;

CREATE TABLE prompt_group (
  grp             INTEGER PRIMARY KEY,
  prompt_json     TEXT    NOT NULL,
  row_json        TEXT    NOT NULL,
  prompt_ids      BLOB    NOT NULL CHECK (length(prompt_ids) % 4 = 0),
  granted_version INTEGER NOT NULL,
  granted_step    INTEGER NOT NULL,
  attempt         INTEGER NOT NULL
) STRICT;

CREATE TABLE rollout (
  grp           INTEGER NOT NULL,
  sample        INTEGER NOT NULL,
  attempt       INTEGER NOT NULL,
  version       INTEGER NOT NULL,    -- of the first generated token
  version_last  INTEGER NOT NULL,
  seed          INTEGER NOT NULL,
  state         TEXT    NOT NULL CHECK (state IN ('received', 'scored', 'trained', 'dropped')),
  reason        TEXT    NOT NULL,
  actor         TEXT    NOT NULL,
  text          TEXT    NOT NULL,
  ids           BLOB    NOT NULL CHECK (length(ids) % 4 = 0),
  logp          BLOB    NOT NULL CHECK (length(logp) = length(ids)),
  versions      BLOB    CHECK (versions IS NULL OR length(versions) = length(ids)),
  loss_mask     BLOB    NOT NULL CHECK (length(loss_mask) * 4 = length(ids)),
  experts       BLOB,                -- u16le [prompt + ids - 1][MoE layers][top_k]
  kept          BLOB,                -- i32le, of each id a count and so many ids; since schema 2
  finish_reason TEXT    NOT NULL,
  score         REAL,
  status        TEXT    NOT NULL,    -- of the reward; '' until scored
  advantage     REAL,
  trained_step  INTEGER CHECK ((trained_step IS NOT NULL) = (state = 'trained')),
  lag           INTEGER,
  received_ms   INTEGER NOT NULL,
  crc32c        INTEGER NOT NULL,
  PRIMARY KEY (grp, sample, attempt)
) STRICT;
CREATE INDEX rollout_state ON rollout (state);
CREATE INDEX rollout_trained_step ON rollout (trained_step);

CREATE TABLE reward_part (
  grp           INTEGER NOT NULL,
  sample        INTEGER NOT NULL,
  attempt       INTEGER NOT NULL,
  name          TEXT    NOT NULL,    -- FUNCTION or FUNCTION/FIELD
  value         REAL,
  weight        REAL    NOT NULL,
  status        TEXT    NOT NULL,
  message       TEXT    NOT NULL,
  line          INTEGER NOT NULL,    -- in the script; 0: none
  script_sha256 TEXT    NOT NULL,    -- '' for a rule
  micros        INTEGER NOT NULL,
  PRIMARY KEY (grp, sample, attempt, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE step (
  step        INTEGER PRIMARY KEY,
  version     INTEGER NOT NULL,
  loss        REAL,
  reward_mean REAL,
  seconds     REAL,
  checkpoint  TEXT    NOT NULL
) STRICT;

CREATE TABLE metric (
  step  INTEGER NOT NULL,
  name  TEXT    NOT NULL,
  value REAL,
  PRIMARY KEY (step, name)
) STRICT, WITHOUT ROWID;
)sql";

}  // namespace temper::store
