#include "nn/data/text/text_files.h"

#include <charconv>
#include <optional>

#include "engine/io/json_view.h"
#include "nn/data/packed_lines.h"
#include "nn/data/text/bioasq.h"

namespace retort::nn {

std::size_t TextFormat::texts_per_sample() const {
  if (task == TextTask::kMultipleChoice) return 1 + (kind == "bioasq" ? 2 : choices.size());
  return kind == "bioasq" || !second.empty() ? 2 : 1;
}

std::string TextFormat::str() const {
  std::string all = join(kind, "\n", name_of(task), "\n", text, "\n", second, "\n", label, "\n",
                         header, by_snippet);
  for (const std::string& choice : choices) all += "\n" + choice;
  return all;
}

namespace {

class Lines : public TextReader {
 public:
  explicit Lines(const std::string& path) : lines_(path) {}
  bool next(TextSample* sample) override {
    std::string_view line;
    do {
      if (!lines_.next(&line)) return false;
    } while (line.empty());
    sample->texts.assign(1, std::string(line));
    sample->label = -1;
    return true;
  }

 private:
  PackedLines lines_;
};

template <class T>
std::optional<T> number_of(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<std::int32_t> label_of(std::string_view text) {
  const auto value = number_of<std::int32_t>(text);
  return value && *value >= 0 && *value < kMostTextClasses ? value : std::nullopt;
}

class Tsv : public TextReader {
 public:
  Tsv(const TextFormat& format, const std::string& path) : lines_(path) {
    std::string_view line;
    if (format.header) {
      if (!lines_.next(&line)) lines_.refuse(0, "expected a line with the names of the columns");
      for (const std::string_view name : cells_of(line)) names_.emplace_back(name);
    }
    columns_ = {column(format.text.empty() ? (format.header ? "sentence" : "0") : format.text)};
    if (format.task == TextTask::kMultipleChoice)
      for (const std::string& choice : format.choices) columns_.push_back(column(choice));
    else if (!format.second.empty())
      columns_.push_back(column(format.second));
    if (format.labelled()) label_ = column(format.label);
  }

  bool next(TextSample* sample) override {
    std::string_view line;
    do {
      if (!lines_.next(&line)) return false;
    } while (line.empty());
    const std::vector<std::string_view> cells = cells_of(line);
    const auto cell = [&](std::size_t c) {
      if (c >= cells.size())
        lines_.refuse(0, "expected at least ", c + 1, " cells between tabs, got ", cells.size());
      return cells[c];
    };
    if (!names_.empty() && cells.size() != names_.size())
      lines_.refuse(0, "expected ", names_.size(), " cells between tabs, got ", cells.size());
    sample->texts.clear();
    for (const std::size_t c : columns_) sample->texts.emplace_back(cell(c));
    sample->label = -1;
    if (!label_) return true;
    const std::string_view text = cell(*label_);
    const auto label = label_of(text);
    if (!label)
      lines_.refuse(static_cast<std::size_t>(text.data() - line.data()), "column ", *label_ + 1,
                    ": expected a label in [0, ", kMostTextClasses, "), got '", escaped(text), "'");
    sample->label = *label;
    return true;
  }

 private:
  static std::vector<std::string_view> cells_of(std::string_view line) {
    std::vector<std::string_view> cells;
    for (std::size_t at = 0; at <= line.size();) {
      const std::size_t end = std::min(line.find('\t', at), line.size());
      cells.push_back(line.substr(at, end - at));
      at = end + 1;
    }
    return cells;
  }
  // By a name of the first line, or a number from 0.
  std::size_t column(const std::string& name) const {
    for (std::size_t c = 0; c < names_.size(); ++c)
      if (names_[c] == name) return c;
    const auto number = number_of<std::size_t>(name);
    if (!number || (!names_.empty() && *number >= names_.size()))
      lines_.refuse(0, "expected a column '", escaped(name), "'",
                    names_.empty()
                        ? ", as a number from 0: there is no line with names (data.header)"
                        : ", as a name of this line or a number from 0");
    return *number;
  }

  PackedLines lines_;
  std::vector<std::string> names_;
  std::vector<std::size_t> columns_;
  std::optional<std::size_t> label_;
};

class Jsonl : public TextReader {
 public:
  Jsonl(const TextFormat& format, const std::string& path)
      : format_(format), path_(path), lines_(path) {
    if (format_.text.empty()) format_.text = "text";
  }

  bool next(TextSample* sample) override {
    std::string_view line;
    do {
      if (!lines_.next(&line)) return false;
    } while (line.empty());
    const std::string place = join(path_, ":", lines_.line());
    const Json json = Json::parse(line, place);
    const JsonView root(json, place);
    sample->texts.assign(1, root.at(format_.text).string());
    if (format_.task == TextTask::kMultipleChoice)
      for (const std::string& choice : format_.choices)
        sample->texts.push_back(root.at(choice).string());
    else if (!format_.second.empty())
      sample->texts.push_back(root.at(format_.second).string());
    sample->label = -1;
    if (format_.labelled())
      sample->label =
          static_cast<std::int32_t>(root.at(format_.label).integer(kMostTextClasses - 1));
    return true;
  }

 private:
  TextFormat format_;
  std::string path_;
  PackedLines lines_;
};

}  // namespace

std::unique_ptr<TextReader> open_text(const TextFormat& format, const std::string& path) {
  if (format.kind == "text") return std::make_unique<Lines>(path);
  if (format.kind == "tsv") return std::make_unique<Tsv>(format, path);
  if (format.kind == "jsonl") return std::make_unique<Jsonl>(format, path);
  return open_bioasq(format, path);
}

}  // namespace retort::nn
