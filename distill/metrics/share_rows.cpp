#include "distill/metrics/share_rows.h"

#include <cstring>
#include <string>
#include <string_view>

namespace retort::distill {
namespace {

template <class F>
void for_all_rows(Measurement& m, F&& f) {
  f(m.targets), f(m.predictions), f(m.rank), f(m.teacher_predictions);
  f(m.loss), f(m.confidence), f(m.kl);
  for (std::vector<float>& one : m.statistics) f(one);
  f(m.sample_of_row);
}

template <class T>
void append(const std::vector<T>& values, std::string* out) {
  const std::uint64_t count = values.size();
  out->append(reinterpret_cast<const char*>(&count), sizeof count);
  out->append(reinterpret_cast<const char*>(values.data()), count * sizeof(T));
}

template <class T>
void take(std::string_view* text, std::vector<T>* values) {
  std::uint64_t count = 0;
  std::memcpy(&count, text->data(), sizeof count);
  text->remove_prefix(sizeof count);
  const std::size_t before = values->size();
  values->resize(before + count);
  if (count > 0) std::memcpy(values->data() + before, text->data(), count * sizeof(T));
  text->remove_prefix(count * sizeof(T));
}

}  // namespace

std::pair<std::int64_t, std::int64_t> passes_of_rank(std::int64_t passes,
                                                     const Communicator& ranks) {
  const auto begin = [&](std::int64_t r) { return passes * r / ranks.size(); };
  return {begin(ranks.rank()), begin(ranks.rank() + 1)};
}

void share_rows(const std::function<void()>& pass, Measurement* rows, Communicator& ranks) {
  std::vector<char> fault;  // what() of an error
  std::vector<std::int64_t> code;
  try {
    pass();
  } catch (const Error& error) {
    code = {static_cast<std::int64_t>(error.code())};
    const std::string_view what = error.what();
    fault.assign(what.begin(), what.end());
  }
  std::string mine;
  append(code, &mine);
  append(fault, &mine);
  if (code.empty()) for_all_rows(*rows, [&](const auto& values) { append(values, &mine); });
  const std::vector<std::string> all = ranks.gather(mine);
  for_all_rows(*rows, [](auto& values) { values.clear(); });
  for (std::string_view text : all) {
    code.clear();
    fault.clear();
    take(&text, &code);
    take(&text, &fault);
    if (!code.empty())
      throw Error(static_cast<ErrorCode>(code[0]), std::string(fault.begin(), fault.end()));
    for_all_rows(*rows, [&](auto& values) { take(&text, &values); });
  }
}

}  // namespace retort::distill
