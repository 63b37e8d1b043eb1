#include "nn/data/normalize.h"

#include <cmath>
#include <locale>
#include <sstream>

#include "engine/io/file.h"
#include "engine/io/json.h"

namespace retort::nn {
namespace {

struct Known {
  const char* name;
  Normalize value;
};
const std::vector<Known>& known() {
  static const std::vector<Known> list{
      {"cifar", {{0.4914, 0.4822, 0.4465}, {0.2470, 0.2435, 0.2616}}},
      {"imagenet", {{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}}},
      {"none", {{}, {}}}};
  return list;
}

void write(std::ostream& out, const std::vector<double>& values) {
  out << '[';
  for (std::size_t i = 0; i < values.size(); ++i) out << (i ? ", " : "") << values[i];
  out << ']';
}

}  // namespace

Normalize Normalize::named(const std::string& name) {
  for (const Known& k : known())
    if (name == k.name) return k.value;
  fail(ErrorCode::kUsage, "[normalize] expected cifar, imagenet, none or [mean, std], got '", name,
       "'");
}

Normalize Normalize::custom(std::vector<double> mean, std::vector<double> std) {
  RETORT_CHECK(!mean.empty() && mean.size() == std.size(),
               "[normalize] expected as many means as standard deviations, at least one, got ",
               mean.size(), " and ", std.size());
  for (std::size_t i = 0; i < mean.size(); ++i)
    RETORT_CHECK(std::isfinite(mean[i]) && std::isfinite(std[i]) && std[i] > 0,
                 "[normalize] expected finite means and std > 0, got mean ", mean[i], ", std ",
                 std[i], " of channel ", i);
  return {std::move(mean), std::move(std)};
}

Normalize Normalize::of(const OptionValue& value, std::int64_t channels) {
  if (const auto* name = std::get_if<std::string>(&value)) return named(*name);
  const auto* numbers = std::get_if<Floats>(&value);
  RETORT_CHECK(numbers != nullptr && !numbers->empty() && numbers->size() % 2 == 0,
               "[normalize] expected a word, or means and as many deviations, got ",
               to_toml(value));
  const auto half = static_cast<std::ptrdiff_t>(numbers->size() / 2);
  std::vector<double> mean(numbers->begin(), numbers->begin() + half),
      std(numbers->begin() + half, numbers->end());
  if (half == 1) {
    mean.assign(static_cast<std::size_t>(channels), mean[0]);
    std.assign(static_cast<std::size_t>(channels), std[0]);
  }
  return custom(std::move(mean), std::move(std));
}

OptionValue Normalize::parse(const std::string& text) {
  for (const Known& k : known())
    if (text == k.name) return text;
  try {
    Floats numbers;
    const Json parsed = Json::parse(text, "normalize");
    for (const Json& part : parsed.items()) {
      if (part.kind() == Json::Kind::kArray)
        for (const Json& number : part.items()) numbers.push_back(number.as_number());
      else
        numbers.push_back(part.as_number());
    }
    of(numbers, 1);
    return numbers;
  } catch (const Error&) {  // told below, in the words of what it is for
  }
  fail(ErrorCode::kBadInput, "[normalize] expected a normalisation, got '", escaped(text), "'");
}

std::string Normalize::str() const {
  for (const Known& k : known())
    if (*this == k.value) return k.name;
  std::ostringstream text;
  text.imbue(std::locale::classic());  // it goes into files
  text.precision(17);
  text << '[';
  write(text, mean);
  text << ", ";
  write(text, std);
  text << ']';
  return text.str();
}

Tensor Normalize::table(std::int64_t channels) const {
  RETORT_CHECK(mean.size() == std.size() &&
                   (mean.empty() || static_cast<std::int64_t>(mean.size()) == channels),
               "[normalize] expected ", channels, " means and standard deviations for images of ",
               channels, " channels, got ", mean.size(), " and ", std.size());
  std::vector<float> values;
  values.reserve(static_cast<std::size_t>(channels) * 256);
  for (std::size_t c = 0; c < static_cast<std::size_t>(channels); ++c)
    for (int pixel = 0; pixel < 256; ++pixel)
      values.push_back(
          static_cast<float>(mean.empty() ? pixel / 255.0 : (pixel / 255.0 - mean[c]) / std[c]));
  return Tensor::from(values, {channels, 256});
}

}  // namespace retort::nn
