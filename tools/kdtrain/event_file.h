// TensorBoard's event files: what TensorBoard needs to draw the numbers of metrics.jsonl.
//
// Note [What an event file holds]
//   Records, one after the other: u64 length, u32 masked CRC of the length's 8 bytes, the data, u32
//   masked CRC of the data; little-endian. The mask of a CRC-32C c is rot_right(c, 15) + 0xa282ead8.
//   The data is a protobuf message Event: wall_time = 1 (double), step = 2 (varint), file_version
//   = 3 ("brain.Event:2", in the first record alone), summary = 5 { value = 1 { tag = 1,
//   simple_value = 2 (float) } }.
//   Source: TensorFlow, "TFRecord and tf.train.Example"; event.proto and summary.proto of
//   TensorBoard; CRC-32C: RFC 3720, appendix B.4.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace retort::tools {

std::uint32_t crc32c(std::string_view bytes);

struct EventScalar {
  std::string tag;  // "train/loss"
  double value = 0;
  bool operator==(const EventScalar&) const = default;
};
struct Event {
  double wall_time = 0;  // seconds since 1970
  std::int64_t step = 0;
  std::string file_version = {};
  std::vector<EventScalar> scalars = {};  // values come back rounded to float
};

/// The record that every event file begins with.
std::string first_event_record(double wall_time);
/// A record of scalars. step >= 0.
std::string event_record(double wall_time, std::int64_t step, std::span<const EventScalar> scalars);

/// All records of a file's bytes, as TensorBoard reads them; other fields are passed over.
/// Errors    kBadInput, with the offset, for a record that is cut or whose CRC is wrong, and for a
///           message that is none.
std::vector<Event> read_events(std::string_view bytes);

}  // namespace retort::tools
