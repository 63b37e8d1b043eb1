#include "nn/data/text/kinds.h"

#include <algorithm>
#include <filesystem>

#include "engine/io/file.h"
#include "kernels/conv2d/conv2d_choice.h"
#include "nn/data/drawn.h"
#include "nn/data/packed_file.h"
#include "nn/data/text/bioasq.h"
#include "nn/data/text/text_dataset.h"

namespace retort::nn {
namespace {

constexpr const char* kUnset = "unset";

// -- keys -------------------------------------------------------------------------------------------
void add(std::vector<OptionSpec>* list, std::vector<OptionSpec> more) {
  for (OptionSpec& spec : more) list->push_back(std::move(spec).not_in_arm());
}

std::vector<OptionSpec> tokenizer_options() {
  return {
      text_option("tokenizer", "",
                  "Text: tokenizer.json, looked for as given, in data.root and beside it."),
      text_option("vocab", "", "Text: vocab.txt, looked for as given, in data.root and beside it."),
      choice_option("case", kUnset, "unset|cased|uncased",
                    "Text: whether the words of data.vocab are lower-cased; unset: with "
                    "data.tokenizer, which says it itself."),
      choice_option("truncation", "longest_first", "longest_first|only_first|only_second",
                    "Text: which text of a pair gives way where it is too long."),
      text_option("cache", "",
                  "Text: folder of tokenised corpora; empty: tokens/ in RETORT_CACHE, or in the "
                  "user's cache folder.")
          .without(kChangesResult)};
}

OptionSpec length_option() {
  return count_option("max_length", 512, 0, 65536, "tokens",
                      "Text: ids of a sequence, special tokens included; what is longer is cut; 0: "
                      "nothing is.")
      .with(kChangesCost);
}

std::vector<OptionSpec> masking_options() {
  return {number_option("mask_share", 0.15, 0, 1, "fraction",
                        "Text: share of the positions that masked_lm predicts, drawn anew in each "
                        "epoch (at least one a sample).")
              .with(kChangesCost),
          number_option("mask_as_mask", 0.8, 0, 1, "fraction",
                        "Text: share of the predicted positions that read [MASK]."),
          number_option("mask_as_random", 0.1, 0, 1, "fraction",
                        "Text: share of the predicted positions that read any other word; the rest "
                        "stay as they are.")};
}

OptionSpec task_option(const char* fallback, const char* tasks) {
  return choice_option("task", fallback, tasks,
                       "Text: what is predicted: masked words, the next word, a class, or which of "
                       "several texts.")
      .with(kChangesCost);
}

OptionSpec classes_option() {
  return count_option("classes", 0, 0, kMostTextClasses, "classes",
                      "Text: labels are below this; 0: one more than the largest in "
                      "data.train_files.")
      .with(kChangesCost);
}

// Every format of text has the same task by default, but for those that cannot.
constexpr const char* kAllTasks = "masked_lm|causal_lm|classification|multiple_choice";

// -- files ------------------------------------------------------------------------------------------
std::string file_of(const DataRequest& request, const std::string& name) {
  return find_packed(name.starts_with('/') ? name : folder_of(request, name, "") + "/" + name);
}

std::vector<std::string> paths_of(const DataRequest& request, const Strings& names) {
  std::vector<std::string> paths;
  for (const std::string& name : names) paths.push_back(file_of(request, name));
  return paths;
}

std::string beside_root(const DataRequest& request, const std::string& key) {
  const std::string &name = request.options.text(key), &root = request.options.text("root");
  std::vector<std::string> places{name};
  if (!name.starts_with('/') && !root.empty())
    for (const char* inner : {"/", "/tokenizer/", "/weights/", "/../"})
      places.push_back(root + inner + name);
  std::string tried;
  for (const std::string& place : places) {
    std::error_code error;
    if (std::filesystem::is_regular_file(place, error)) return place;
    tried += (tried.empty() ? "" : ", ") + place;
  }
  fail(ErrorCode::kIo, "[data] data.", key, ": there is no file ", escaped(name, 4096), " (tried ",
       escaped(tried, 4096), ")");
}

std::shared_ptr<const Tokenizer> tokenizer_of(const DataRequest& request) {
  if (!request.options.text("tokenizer").empty())
    return std::make_shared<Tokenizer>(Tokenizer::from_json(beside_root(request, "tokenizer")));
  return std::make_shared<Tokenizer>(Tokenizer::from_vocab(
      beside_root(request, "vocab"), request.options.text("case") == "uncased"));
}

std::optional<OptionFault> tokenizer_fault(const Options& options) {
  const bool vocab = !options.text("vocab").empty(), json = !options.text("tokenizer").empty();
  if (vocab == json)
    return OptionFault{"tokenizer", "expected either data.tokenizer or data.vocab"};
  if (vocab == (options.text("case") == kUnset))
    return OptionFault{"case", vocab ? "expected cased or uncased: data.vocab does not say it"
                                     : "data.tokenizer says it itself: expected unset"};
  if (options.integer("max_length") == 1)
    return OptionFault{"max_length", "leaves no room for a word beside special tokens"};
  if (options.has("mask_as_mask") &&
      options.number("mask_as_mask") + options.number("mask_as_random") > 1)
    return OptionFault{"mask_as_random", "expected at most 1 together with data.mask_as_mask"};
  return std::nullopt;
}

std::string cache_of(const Options& options) {
  if (!options.text("cache").empty()) return options.text("cache");
  const std::string folder = kernels::conv2d_cache_folder();
  RETORT_CHECK(!folder.empty(),
               "[data] expected data.cache=DIR for tokenised texts (or one of the "
               "environment variables RETORT_CACHE, XDG_CACHE_HOME and HOME)");
  return folder + "/tokens";
}

Truncation truncation_of(const Options& options) {
  const std::string& text = options.text("truncation");
  if (text == "only_first") return Truncation::kOnlyFirst;
  return text == "only_second" ? Truncation::kOnlySecond : Truncation::kLongestFirst;
}

CorpusOptions corpus_options(const DataRequest& request, TextFormat format,
                             std::vector<std::string> files) {
  const Options& o = request.options;
  CorpusOptions corpus;
  corpus.format = std::move(format);
  corpus.files = std::move(files);
  corpus.per_file = request.split == "train" ? o.integer("train_per_file") : 0;
  corpus.limit = o.integer(request.split + "_limit");
  corpus.cache = cache_of(o);
  corpus.max_length = o.integer("max_length");
  corpus.truncation = truncation_of(o);
  return corpus;
}

TextOptions text_options(const DataRequest& request, TextTask task) {
  TextOptions options;
  options.format = request.format;
  options.task = task;
  const Options& o = request.options;
  if (o.has("mask_share")) {
    options.mask_share = o.number("mask_share");
    options.masked = o.number("mask_as_mask");
    options.replaced = o.number("mask_as_random");
  }
  return options;
}

// -- text, jsonl, tsv -------------------------------------------------------------------------------
TextFormat format_of(const DataRequest& request) {
  const Options& o = request.options;
  TextFormat format;
  format.kind = request.format;
  format.task = parse_text_task(o.text("task"));
  if (format.kind == "text") return format;
  format.text = o.text("text");
  format.second = o.text("second");
  format.label = o.text("label");
  format.choices = o.texts("choices");
  if (format.kind == "tsv") format.header = o.flag("header");
  return format;
}

std::int64_t largest_label(const DataRequest& request, const TextFormat& format) {
  const Strings& files = request.options.texts("train_files");
  RETORT_CHECK(!files.empty(),
               "[data] expected data.train_files or data.classes: they say how many classes there "
               "are");
  std::int32_t largest = 0;
  TextSample sample;
  for (const std::string& path : paths_of(request, files))
    for (const auto reader = open_text(format, path); reader->next(&sample);)
      largest = std::max(largest, sample.label);
  return largest;
}

std::shared_ptr<const Dataset> open_texts(const DataRequest& asked) {
  const std::int64_t holdout = asked.options.integer("holdout");
  DataRequest request = asked;
  // The samples held out are drawn across the training files, which may be sorted, and tokenised
  // with the others.
  if (asked.split == "validation" && holdout > 0) request.split = "train";
  const Strings files = files_of(request, {});
  if (files.empty()) return nullptr;
  const TextFormat format = format_of(request);
  TextOptions options = text_options(request, format.task);
  if (format.task == TextTask::kClassification) {
    options.classes = request.options.integer("classes");
    if (options.classes == 0)
      options.classes = std::max<std::int64_t>(2, largest_label(request, format) + 1);
  }
  const CorpusOptions corpus = corpus_options(request, format, paths_of(request, files));
  auto all = std::make_shared<TextDataset>(
      tokenised_corpus(tokenizer_of(request), corpus, request.tell), options);
  if (request.split != "train" || holdout == 0) return all;
  RETORT_CHECK(holdout < all->size(), "[data] data.holdout = ", holdout, " of ", all->size(),
               " training samples leaves nothing to train on");
  const bool is_train = asked.split == "train";
  const std::vector<std::int64_t> held = drawn_samples(all->size(), holdout, 0, "holdout");
  std::vector<std::int64_t> part;
  if (is_train) {
    for (std::int64_t i = 0; i < all->size(); ++i)
      if (!std::binary_search(held.begin(), held.end(), i)) part.push_back(i);
  } else {
    part = held;
  }
  return first_of(all->subset(part), is_train ? 0 : asked.options.integer("validation_limit"));
}

// What text, jsonl and tsv share.
std::optional<OptionFault> text_fault(const Options& options) {
  if (options.integer("holdout") > 0 && !options.texts("validation_files").empty())
    return OptionFault{"holdout", "data.validation_files is set too: expected one of them"};
  return tokenizer_fault(options);
}

std::optional<OptionFault> field_fault(const Options& options) {
  if (auto fault = text_fault(options)) return fault;
  const std::string& task = options.text("task");
  const std::size_t choices = options.texts("choices").size();
  if (task == "multiple_choice" && choices < 2)
    return OptionFault{"choices", "expected the names of at least two fields"};
  if (task != "multiple_choice" && choices > 0)
    return OptionFault{"choices", "is read with task = \"multiple_choice\" only"};
  return std::nullopt;
}

// -- bioasq -----------------------------------------------------------------------------------------
BioasqSplit split_of(const Options& options) {
  BioasqSplit split;
  const std::string& kind = options.text("split");
  split.kind = kind == "paper"     ? BioasqSplit::Kind::kPaper
               : kind == "grouped" ? BioasqSplit::Kind::kGrouped
                                   : BioasqSplit::Kind::kOfficial;
  split.undersample = options.flag("undersample");
  split.per_class = options.integer("per_class");
  split.seed = static_cast<std::uint64_t>(options.integer("split_seed"));
  return split;
}

std::shared_ptr<const Dataset> open_questions(const DataRequest& request) {
  const Options& o = request.options;
  const BioasqSplit split = split_of(o);
  const Strings standard_train{"bioasq7b_yesno_train.json"};
  Strings files;
  if (split.kind != BioasqSplit::Kind::kOfficial) {
    // All parts are made of the training files.
    files = o.texts("train_files").empty() ? standard_train : o.texts("train_files");
  } else {
    files = files_of(request, request.split == "train"  ? standard_train
                              : request.split == "test" ? Strings{"bioasq7b_yesno_test.json"}
                                                        : Strings{});
  }
  if (files.empty()) return nullptr;
  TextFormat format;
  format.kind = "bioasq";
  format.task = parse_text_task(o.text("task"));
  format.by_snippet = o.text("rows") == "snippet";
  CorpusOptions corpus = corpus_options(request, format, paths_of(request, files));
  corpus.open = [split, part = request.split, format](const std::string& path) {
    return samples_of(format, part_of(read_bioasq(path, format.by_snippet), split, part));
  };
  corpus.opened_as = join(o.text("split"), " ", split.undersample, " ", split.per_class, " ",
                          split.seed, " ", request.split);
  TextOptions options = text_options(request, format.task);
  options.classes = 2;
  return std::make_shared<TextDataset>(
      tokenised_corpus(tokenizer_of(request), corpus, request.tell), options);
}

// -- tokens -----------------------------------------------------------------------------------------
std::shared_ptr<const Dataset> open_ids(const DataRequest& request) {
  const Strings files = files_of(request, {});
  if (files.empty()) return nullptr;
  const Options& o = request.options;
  IdFileOptions ids;
  ids.task = parse_text_task(o.text("task"));
  ids.files = paths_of(request, files);
  ids.per_file = request.split == "train" ? o.integer("train_per_file") : 0;
  ids.limit = o.integer(request.split + "_limit");
  ids.ids = o.integer("ids");
  ids.max_length = o.integer("max_length");
  const auto samples = samples_of_ids(ids);
  TextOptions options = text_options(request, ids.task);
  options.classes = o.integer("classes");
  options.ids = ids.ids;
  // What nobody says is as in the training files.
  const bool needs =
      options.ids == 0 || (ids.task == TextTask::kClassification && options.classes == 0);
  if (needs) {
    RETORT_CHECK(!o.texts("train_files").empty(),
                 "[tokens] expected data.train_files, or data.ids and data.classes");
    IdFileOptions train = ids;
    train.files = paths_of(request, o.texts("train_files"));
    train.per_file = train.limit = 0;
    const auto of_train = train.files == ids.files && ids.per_file == 0 && ids.limit == 0
                              ? samples
                              : samples_of_ids(train);
    if (options.ids == 0) options.ids = ids_of(*of_train);
    std::int32_t largest = 1;
    for (std::int64_t i = 0; i < of_train->size(); ++i)
      largest = std::max(largest, of_train->label(i));
    if (options.classes == 0) options.classes = largest + std::int64_t{1};
    RETORT_CHECK_AS(kBadInput, ids_of(*samples) <= options.ids, "[tokens] ",
                    escaped(ids.files.front(), 4096), ": expected ids below ", options.ids,
                    " as in data.train_files, got ", ids_of(*samples) - 1);
  }
  return std::make_shared<TextDataset>(samples, options);
}

}  // namespace

DataKind text_kind(const std::string& name) {
  DataKind kind;
  kind.names = {name};
  kind.gives = Reads::kTokens;
  kind.options = file_options();
  add(&kind.options, tokenizer_options());
  add(&kind.options,
      {length_option(), count_option("holdout", 0, 0, 1e9, "samples",
                                     "Text: n samples, drawn across data.train_files, are not "
                                     "trained on: they are split 'validation'; 0: none.")});
  add(&kind.options, masking_options());
  if (name == "text") {
    kind.doc = "texts, one a line, for language models";
    add(&kind.options, {task_option("masked_lm", "masked_lm|causal_lm")});
    kind.check = text_fault;
  } else {
    kind.doc = name == "tsv" ? "texts in the columns of a table between tabs, as GLUE has them"
                             : "texts in the fields of JSON objects, one a line";
    add(&kind.options,
        {task_option("masked_lm", kAllTasks),
         text_option("text", "",
                     "Text: the field or column of the text, or of the first of a pair; empty: "
                     "\"text\" (jsonl), \"sentence\" or column 0 (tsv)."),
         text_option("second", "",
                     "Text: the field or column of a pair's second; empty: no pairs."),
         text_option("label", "label",
                     "Text: the field or column of the class, or of which choice is right."),
         strings_option("choices", {},
                        "Text: fields or columns of the choices, each of which makes a pair with "
                        "data.text."),
         classes_option()});
    if (name == "tsv")
      add(&kind.options,
          {flag_option("header", true, "Text: the first line of a file names the columns.")});
    kind.check = field_fault;
  }
  kind.open = open_texts;
  return kind;
}

DataKind bioasq_kind() {
  DataKind kind;
  kind.names = {"bioasq"};
  kind.gives = Reads::kTokens;
  kind.doc = "yes/no questions of BioASQ with their snippets";
  kind.options = file_options();
  add(&kind.options, tokenizer_options());
  add(&kind.options, {length_option()});
  add(&kind.options,
      {task_option("classification", "classification|multiple_choice"),
       choice_option("rows", "question", "question|snippet",
                     "BioASQ: a row a question with all its snippets, or a row a snippet."),
       choice_option("split", "official", "official|paper|grouped",
                     "BioASQ: the files as they are; or parts of the training files, 1500 : 100 : "
                     "166 of their rows after undersampling: any rows as in the paper (a question "
                     "may be in two parts), or by question."),
       flag_option("undersample", false,
                   "BioASQ: with the official split, train on as many rows of each answer."),
       count_option("per_class", 883, 1, 1e9, "rows",
                    "BioASQ: rows of each answer that the other splits are made of."),
       count_option("split_seed", 42, 0, 1e9, "", "BioASQ: draws the other splits.")});
  kind.check = [](const Options& options) -> std::optional<OptionFault> {
    if (auto fault = tokenizer_fault(options)) return fault;
    if (options.text("split") == "official") return std::nullopt;
    if (options.flag("undersample"))
      return OptionFault{"undersample", "is read with split = \"official\" only"};
    for (const char* key : {"validation_files", "test_files"})
      if (!options.texts(key).empty())
        return OptionFault{key, "the parts are made of the training files: expected none"};
    return std::nullopt;
  };
  kind.open = open_questions;
  return kind;
}

DataKind tokens_kind() {
  DataKind kind;
  kind.names = {"tokens"};
  kind.gives = Reads::kTokens;
  kind.doc = "ids that another tokenizer made, in JSON lines";
  kind.options = file_options();
  add(&kind.options, {length_option(), task_option("masked_lm", kAllTasks), classes_option(),
                      count_option("ids", 0, 0, 1 << 24, "ids",
                                   "Tokens: ids are below this; 0: one more than the largest in "
                                   "data.train_files.")
                          .with(kChangesCost)});
  kind.open = open_ids;
  return kind;
}

}  // namespace retort::nn
