#include "distill/teacher/share_logits.h"

#include <cstring>
#include <string>
#include <string_view>

namespace retort::distill {
namespace {

template <class T>
void put(const std::vector<T>& values, std::string* out) {
  out->append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

template <class T>
void take_values(std::string_view* text, std::size_t count, std::vector<T>* values) {
  values->resize(count);
  if (count > 0) std::memcpy(values->data(), text->data(), count * sizeof(T));
  text->remove_prefix(count * sizeof(T));
}

}  // namespace

void share_new_rows(LogitCache& cache, Communicator& ranks) {
  const LogitRows mine = cache.take_new_rows();
  std::string packed;
  put(mine.samples, &packed);
  put(mine.variants, &packed);
  put(mine.values, &packed);
  const std::vector<std::string> all = ranks.gather(packed);
  const auto width = static_cast<std::size_t>(cache.key().width);
  const std::size_t row_bytes =
      sizeof(std::int64_t) + sizeof(std::uint32_t) + width * sizeof(float);
  for (int r = 0; r < ranks.size(); ++r) {
    if (r == ranks.rank()) continue;
    std::string_view text = all[static_cast<std::size_t>(r)];
    const std::size_t count = text.size() / row_bytes;
    LogitRows rows;
    take_values(&text, count, &rows.samples);
    take_values(&text, count, &rows.variants);
    take_values(&text, count * width, &rows.values);
    cache.take_over(rows);
  }
}

}  // namespace retort::distill
