#pragma once
// The schema of trajectories.db: its identity, its version, its SQL.
#include <cstdint>

namespace temper::store {

constexpr std::int64_t kApplicationId = 0x544D5052;  // "TMPR"
constexpr std::int64_t kSchemaVersion = 2;           // PRAGMA user_version

/// Creates every table and index; runs inside the creating transaction.
extern const char* const kSchemaSql;

}  // namespace temper::store
