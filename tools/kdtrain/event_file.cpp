#include "tools/kdtrain/event_file.h"

#include <array>
#include <bit>
#include <cstring>

#include "kernels/common/check.h"

namespace retort::tools {
namespace {

// Reflected polynomial of Castagnoli.
constexpr std::array<std::uint32_t, 256> make_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) != 0 ? (c >> 1) ^ 0x82f63b78u : c >> 1;
    table[i] = c;
  }
  return table;
}
constexpr auto kTable = make_table();

std::uint32_t masked(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

// -- writing ----------------------------------------------------------------------------------------
enum Wire : std::uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_fixed(std::string* out, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) *out += static_cast<char>(value >> (8 * i));
}
void put_varint(std::string* out, std::uint64_t value) {
  for (; value >= 128; value >>= 7) *out += static_cast<char>(value | 128);
  *out += static_cast<char>(value);
}
void put_key(std::string* out, std::uint32_t field, Wire wire) {
  put_varint(out, (std::uint64_t{field} << 3) | wire);
}
void put_bytes(std::string* out, std::uint32_t field, std::string_view bytes) {
  put_key(out, field, kBytes);
  put_varint(out, bytes.size());
  *out += bytes;
}

std::string event_at(double wall_time, std::int64_t step) {
  std::string event;
  put_key(&event, 1, kFixed64);
  put_fixed(&event, std::bit_cast<std::uint64_t>(wall_time), 8);
  put_key(&event, 2, kVarint);
  put_varint(&event, static_cast<std::uint64_t>(step));
  return event;
}

std::string record_of(const std::string& data) {
  std::string length, record;
  put_fixed(&length, data.size(), 8);
  record = length;
  put_fixed(&record, masked(length), 4);
  record += data;
  put_fixed(&record, masked(data), 4);
  return record;
}

// -- reading ----------------------------------------------------------------------------------------
std::uint64_t fixed(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i)
    value |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  return value;
}

// Fields of a message, front to back.
class Fields {
 public:
  explicit Fields(std::string_view message) : rest_(message) {}
  // False at the end. Of kBytes the contents, of the other wires the number's bits.
  bool next() {
    if (rest_.empty()) return false;
    const std::uint64_t key = varint();
    field = key >> 3;
    switch (key & 7) {
      case kVarint: number = varint(); break;
      case kFixed64: number = fixed(take(8)); break;
      case kFixed32: number = fixed(take(4)); break;
      case kBytes: bytes = take(varint()); break;
      default: refuse();
    }
    return true;
  }
  std::uint64_t field = 0, number = 0;
  std::string_view bytes;

 private:
  [[noreturn]] static void refuse() {
    fail(ErrorCode::kBadInput, "[events] expected a protobuf message");
  }
  std::string_view take(std::uint64_t count) {
    if (count > rest_.size()) refuse();
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= std::uint64_t{byte & 127u} << shift;
      if (byte < 128) return value;
    }
    refuse();
  }
  std::string_view rest_;
};

EventScalar scalar_of(std::string_view message) {
  EventScalar scalar;
  for (Fields f(message); f.next();) {
    if (f.field == 1) scalar.tag = f.bytes;
    if (f.field == 2)
      scalar.value =
          static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(f.number)));
  }
  return scalar;
}

Event event_of(std::string_view message) {
  Event event;
  for (Fields f(message); f.next();) {
    if (f.field == 1) event.wall_time = std::bit_cast<double>(f.number);
    if (f.field == 2) event.step = static_cast<std::int64_t>(f.number);
    if (f.field == 3) event.file_version = f.bytes;
    if (f.field != 5) continue;
    for (Fields summary(f.bytes); summary.next();)
      if (summary.field == 1) event.scalars.push_back(scalar_of(summary.bytes));
  }
  return event;
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = ~std::uint32_t{0};
  for (const char c : bytes) crc = kTable[(crc ^ static_cast<unsigned char>(c)) & 255] ^ (crc >> 8);
  return ~crc;
}

std::string first_event_record(double wall_time) {
  std::string event = event_at(wall_time, 0);
  put_bytes(&event, 3, "brain.Event:2");
  return record_of(event);
}

std::string event_record(double wall_time, std::int64_t step,
                         std::span<const EventScalar> scalars) {
  RETORT_CHECK(step >= 0, "[events] expected a step >= 0, got ", step);
  std::string summary;
  for (const EventScalar& scalar : scalars) {
    std::string value;
    put_bytes(&value, 1, scalar.tag);
    put_key(&value, 2, kFixed32);
    put_fixed(&value, std::bit_cast<std::uint32_t>(static_cast<float>(scalar.value)), 4);
    put_bytes(&summary, 1, value);
  }
  std::string event = event_at(wall_time, step);
  put_bytes(&event, 5, summary);
  return record_of(event);
}

std::vector<Event> read_events(std::string_view bytes) {
  std::vector<Event> events;
  constexpr std::size_t kHead = 12, kFoot = 4;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::string_view rest = bytes.substr(at);
    RETORT_CHECK_AS(kBadInput, rest.size() >= kHead, "[events] the record at byte ", at, " is cut");
    RETORT_CHECK_AS(kBadInput, fixed(rest.substr(8, 4)) == masked(rest.substr(0, 8)),
                    "[events] the length of the record at byte ", at, " has another checksum");
    const std::uint64_t length = fixed(rest.substr(0, 8));
    RETORT_CHECK_AS(kBadInput,
                    rest.size() >= kHead + kFoot && length <= rest.size() - kHead - kFoot,
                    "[events] the record at byte ", at, " is cut");
    const std::string_view data = rest.substr(kHead, length);
    RETORT_CHECK_AS(kBadInput, fixed(rest.substr(kHead + length, kFoot)) == masked(data),
                    "[events] the data of the record at byte ", at, " has another checksum");
    events.push_back(event_of(data));
    at += kHead + length + kFoot;
  }
  return events;
}

}  // namespace retort::tools
