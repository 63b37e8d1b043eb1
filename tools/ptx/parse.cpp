// PTX text -> Module. Accepts what nvcc emits: directives, one scope per pair of braces, labels per
// scope. Any bytes give a Module or a Fault (tests/fuzz/ptx_fuzz.cpp). One grammar, one file.
#include <algorithm>
#include <bit>
#include <cctype>
#include <cstring>
#include <unordered_map>

#include "tools/ptx/machine.h"

namespace retort::ptx {
namespace {
struct Token {
  enum Kind : u8 { word, number, string, mark, end } kind;
  std::string text;
  u32 line;
};

std::vector<Token> tokens_of(const std::string& s) {
  std::vector<Token> out;
  u32 line = 1;
  std::size_t i = 0;
  const auto wordish = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' ||
           c == '.';
  };
  while (i < s.size()) {
    const char c = s[i];
    if (c == '\n') {
      ++line;
      ++i;
      continue;
    }
    if (std::isspace(static_cast<unsigned char>(c))) {
      ++i;
      continue;
    }
    if (c == '/' && i + 1 < s.size() && s[i + 1] == '/') {
      while (i < s.size() && s[i] != '\n') ++i;
      continue;
    }
    if (c == '/' && i + 1 < s.size() && s[i + 1] == '*') {
      i += 2;
      while (i + 1 < s.size() && !(s[i] == '*' && s[i + 1] == '/')) line += s[i++] == '\n';
      i += 2;
      continue;
    }
    if (c == '"') {
      std::size_t j = i + 1;
      while (j < s.size() && s[j] != '"') ++j;
      out.push_back({Token::string, s.substr(i + 1, j - i - 1), line});
      i = j + 1;
      continue;
    }
    if (std::isdigit(static_cast<unsigned char>(c))) {
      std::size_t j = i;
      while (j < s.size() &&
             (std::isalnum(static_cast<unsigned char>(s[j])) || s[j] == '_' || s[j] == '.'))
        ++j;
      out.push_back({Token::number, s.substr(i, j - i), line});
      i = j;
      continue;
    }
    if (wordish(c)) {
      std::size_t j = i;
      while (j < s.size()) {
        if (wordish(s[j]))
          ++j;
        else if (s[j] == ':' && j + 1 < s.size() && s[j + 1] == ':')
          j += 2;  // shared::cta
        else
          break;
      }
      out.push_back({Token::word, s.substr(i, j - i), line});
      i = j;
      continue;
    }
    out.push_back({Token::mark, std::string(1, c), line});
    ++i;
  }
  out.push_back({Token::end, "", line});
  return out;
}

std::vector<std::string> split(const std::string& s) {
  std::vector<std::string> parts;
  std::size_t at = 0;
  while (true) {
    const std::size_t dot = s.find('.', at);
    parts.push_back(s.substr(at, dot - at));
    if (dot == std::string::npos) return parts;
    at = dot + 1;
  }
}

constexpr std::size_t kMostText = std::size_t{64} << 20;
constexpr u64 kMostBytes = u64{16} << 20;  // of a variable, and of all variables of a space
constexpr u64 kMostOffset = u64{1} << 40;
constexpr u64 kMostFiles = 1 << 20, kMostLines = 1 << 30;
constexpr std::size_t kMostRegisters = std::size_t{1} << 20;

u64 rounded_up(u64 at, u32 align) { return (at + align - 1) / align * align; }

class Parser {
 public:
  explicit Parser(const std::string& text)
      : tokens_(tokens_of(text)), module_(std::make_unique<Module>()) {
    if (text.size() > kMostText) refuse("more than 64 MiB of text");
    std::size_t at = 0;
    module_->lines.emplace_back();
    while (at <= text.size()) {
      const std::size_t end = text.find('\n', at);
      module_->lines.push_back(text.substr(at, end - at));
      if (end == std::string::npos) break;
      at = end + 1;
    }
  }
  std::unique_ptr<Module> run() {
    while (peek().kind != Token::end) {
      const std::string word = next().text;
      if (word == ".version" || word == ".address_size")
        next();
      else if (word == ".target") {
        module_->target = next().text;
        while (accept(",")) next();
      } else if (word == ".visible" || word == ".weak" || word == ".extern") {
        linkage_ = word;
        continue;
      } else if (word == ".entry")
        entry();
      else if (word == ".shared")
        module_variable();
      else if (word == ".file") {
        const u32 file = static_cast<u32>(number(kMostFiles));
        module_->files[file] = next().text;
        if (accept(",")) {
          next();
          expect(",");
          next();
        }
      } else if (word == ".section")
        skip_braces();
      else if (word == ".global")
        module_constant();
      else if (word == ".const" || word == ".func")
        refuse("a " + word + " of the module is not supported");
      else
        refuse("unexpected '" + word + "'");
      linkage_.clear();
    }
    return std::move(module_);
  }

 private:
  // The last token is the end, and stays.
  const Token& peek(std::size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  const Token& next() {
    const Token& t = peek();
    at_ = std::min(at_ + 1, tokens_.size() - 1);
    return t;
  }
  bool accept(const char* mark) {
    if (peek().text != mark) return false;
    ++at_;
    return true;
  }
  void expect(const char* mark) {
    if (!accept(mark)) refuse(std::string("expected '") + mark + "', found '" + peek().text + "'");
  }
  [[noreturn]] void refuse(const std::string& why) const {
    throw Fault("ptx line " + std::to_string(peek().line) + ": " + why);
  }
  const Token& expect_more() {
    if (peek().kind == Token::end) refuse("the text ends too early");
    return next();
  }
  /// A number from 0 to `most`.
  u64 number(u64 most) {
    const Token t = next();
    std::size_t used = 0;
    u64 v = most;
    try {
      v = std::stoull(t.text, &used, 0);
    } catch (const std::logic_error&) {
      used = 0;
    }
    if (t.kind != Token::number || used == 0 || t.text.find_first_not_of("uU", used) != t.text.npos)
      refuse("expected a number, found '" + t.text + "'");
    if (v > most) refuse("expected at most " + std::to_string(most) + ", found " + t.text);
    return v;
  }
  u32 alignment() {
    const u32 align = static_cast<u32>(number(4096));
    if (!std::has_single_bit(align))
      refuse("expected an alignment, found " + std::to_string(align));
    return align;
  }
  u32 bytes_of(const std::string& type) {
    for (const u32 bytes : {1u, 2u, 4u, 8u})
      if (type.size() > 1 && std::string("bsuf").find(type[0]) != std::string::npos &&
          type.substr(1) == std::to_string(8 * bytes))
        return bytes;
    refuse("unknown type " + type);
  }
  void skip_braces() {
    while (expect_more().text != "{") {
    }
    for (int depth = 1; depth > 0;) {
      const std::string& t = expect_more().text;
      depth += t == "{" ? 1 : t == "}" ? -1 : 0;
    }
  }

  // [.align N] .type name [ '[' size ']' ]
  Variable variable() {
    Variable v;
    bool aligned = false, pointer = false;
    u32 element = 0;
    while (peek().text.starts_with(".")) {
      const std::string word = next().text;
      if (word == ".align") {
        const u32 align = alignment();
        if (!pointer) v.align = align, aligned = true;  // else: of what is pointed to
      } else if (word == ".ptr")
        pointer = true;
      else if (word == ".global")
        continue;
      else if (word == ".v2" || word == ".v4")
        refuse("vector variables are not supported");
      else
        element = bytes_of(word.substr(1));
    }
    if (element == 0) refuse("a variable without a type");
    v.name = next().text;
    v.size = element;
    if (accept("[")) {
      if (accept("]"))
        v.size = 0;
      else {
        v.size = element * static_cast<u32>(number(kMostBytes / element));
        expect("]");
      }
    }
    if (!aligned) v.align = element;
    return v;
  }
  void module_variable() {
    const Variable v = variable();
    expect(";");
    if (linkage_ != ".extern" || v.size != 0)
      refuse("only dynamic shared memory is known outside functions");
    dynamic_[v.name] = v.align;
  }

  // .global .align A .b8 name[N] = {byte, ...};  such tables belong to CUDA's mathematics
  void module_constant() {
    const Variable v = variable();
    if (module_->globals.contains(v.name)) refuse("a second table " + v.name);
    auto bytes = std::make_unique<std::vector<u8>>(v.size + 256);
    if (accept("=")) {
      expect("{");
      for (std::size_t k = 0; !accept("}"); ++k) {
        if (k == v.size) refuse("more bytes than " + v.name + " has");
        (*bytes)[k] = static_cast<u8>(number(255));
        accept(",");
      }
    }
    expect(";");
    const u64 at = (reinterpret_cast<u64>(bytes->data()) + kDeviceBias + 255) & ~u64{255};
    u8* const host = reinterpret_cast<u8*>(at - kDeviceBias);
    std::memmove(host, bytes->data(), v.size);
    memory().add(at, v.size, host);
    module_->globals[v.name] = at;
    module_->storage.push_back(std::move(bytes));
  }

  void entry() {
    auto owner = std::make_unique<Function>();
    Function& f = *owner;
    f_ = &f;
    f.name = next().text;
    if (accept("(")) {
      while (!accept(")")) {
        if (next().text != ".param") refuse("expected .param");
        Variable v = variable();
        f.param_size = (f.param_size + v.align - 1) / v.align * v.align;
        v.offset = f.param_size;
        f.param_size += v.size;
        if (f.param_size > 32768) refuse("more than 32 KiB of parameters");
        f.params.push_back(v);
        accept(",");
      }
    }
    while (peek().text != "{") {
      const std::string word = expect_more().text;
      if (word == ".maxntid" || word == ".reqntid") {
        u64 threads = 1;
        do threads *= number(1024);
        while (accept(",") && threads <= 1024);
        if (threads > 1024) refuse("more than 1024 threads");
        f.max_threads = static_cast<u32>(threads);
      } else if (word == ".minnctapersm" || word == ".maxnreg" || word == ".maxclusterrank")
        next();
      else if (word == ".reqnctapercluster" || word == ".explicitcluster")
        refuse(word + " is not supported");
      else
        refuse("unexpected '" + word + "' before a body");
    }
    expect("{");
    source_ = {};
    scopes_ = {0};
    names_.assign(1, {});
    scope_count_ = 1;
    body();
    // static shared memory, in the order of declaration; the dynamic part follows
    u64 at = placed(f.shared, kSharedBase);
    for (const auto& [name, align] : dynamic_) {
      f.dynamic_shared = true;
      f.dynamic_align = std::max(f.dynamic_align, align);
    }
    at = rounded_up(at, f.dynamic_align);
    for (const auto& [name, align] : dynamic_)
      f.shared.push_back({name, static_cast<u32>(at), 0, align});
    f.shared_size = static_cast<u32>(at);
    f.local_size = static_cast<u32>(placed(f.local, 0));
    module_->functions[f.name] = std::move(owner);
  }

  u64 placed(std::vector<Variable>& variables, u64 at) {
    for (Variable& v : variables) {
      at = rounded_up(at, v.align);
      v.offset = static_cast<u32>(at);
      at += v.size;
      if (at > kMostBytes) refuse("more than 16 MiB of variables");
    }
    return at;
  }

  void body() {
    int depth = 1;
    while (depth > 0) {
      const Token& t = peek();
      if (t.kind == Token::end) refuse("the text ends inside a function");
      if (t.text == "{") {
        ++at_, ++depth;
        scopes_.push_back(scope_count_++);
        names_.emplace_back();
      } else if (t.text == "}") {
        ++at_, --depth;
        scopes_.pop_back();
        names_.pop_back();
      } else if (t.text == ".reg") {
        ++at_;
        registers();
      } else if (t.text == ".shared" || t.text == ".local") {
        ++at_;
        (t.text == ".shared" ? f_->shared : f_->local).push_back(variable());
        expect(";");
      } else if (t.text == ".pragma") {
        while (expect_more().text != ";") {
        }
      } else if (t.text == ".loc") {
        location();
      } else if (t.kind == Token::word && peek(1).text == ":") {
        f_->labels[{scopes_.back(), t.text}] = static_cast<u32>(f_->statements.size());
        at_ += 2;
      } else if (t.text == ";") {
        ++at_;
      } else {
        statement();
      }
    }
  }

  // .loc FILE LINE COLUMN [, function_name NAME [+ N], inlined_at FILE LINE COLUMN]
  void location() {
    const u32 line = next().line;
    const auto place = [&] {
      Place p;
      p.file = static_cast<u32>(number(kMostFiles));
      p.line = static_cast<u32>(number(kMostLines));
      number(kMostLines);
      return p;
    };
    source_ = {place(), {}};
    while (peek().line == line && peek().kind != Token::end)
      if (next().text == "inlined_at") source_.inlined_at = place();
  }

  void registers() {
    const std::string word = next().text, type = word.empty() ? word : word.substr(1);
    const Width width = type == "pred"        ? Width::kPredicate
                        : bytes_of(type) == 8 ? Width::k64
                                              : Width::k32;
    do {
      const std::string name = next().text;
      u32 count = 0;
      bool many = false;
      if (accept("<")) {
        many = true;
        count = static_cast<u32>(number(kMostRegisters));
        expect(">");
      }
      const auto add = [&](const std::string& n) {
        names_.back()[n] = static_cast<int>(f_->registers.size());
        f_->registers.push_back({n, type, width, 0});
        if (f_->registers.size() > kMostRegisters) refuse("more than 2^20 registers");
      };
      if (!many) add(name);
      for (u32 k = 0; k < count; ++k) add(name + std::to_string(k));
    } while (accept(","));
    expect(";");
  }
  int find(const std::string& name) const {
    for (std::size_t k = names_.size(); k-- > 0;)
      if (const auto it = names_[k].find(name); it != names_[k].end()) return it->second;
    return -1;
  }

  Operand operand() {
    Operand o;
    if (peek().kind == Token::end) refuse("the text ends inside a statement");
    if (accept("!")) {
      if (peek().kind != Token::word) refuse("expected a predicate after !");
      o = operand();
      o.negated = true;
      return o;
    }
    if (accept("{")) {
      o.kind = Operand::kVector;
      while (!accept("}")) {
        if (peek().text == "{") refuse("a vector in a vector");
        o.list.push_back(operand());
        accept(",");
      }
      return o;
    }
    if (accept("[")) {
      o.kind = Operand::kAddress;
      const Token base = next();
      if (base.kind == Token::number) {
        --at_;
        o.offset = static_cast<i64>(number(kMostOffset));
      } else {
        o.index = find(base.text);
        if (o.index < 0) o.text = base.text;
      }
      if (accept("+")) {
        const bool minus = accept("-");
        o.offset += (minus ? -1 : 1) * static_cast<i64>(number(kMostOffset));
      } else if (accept("-")) {
        o.offset -= static_cast<i64>(number(kMostOffset));
      }
      expect("]");
      return o;
    }
    const bool minus = accept("-");
    const Token t = next();
    if (t.kind == Token::number) {
      o.kind = Operand::kImmediate;
      o.text = (minus ? "-" : "") + t.text;
      return o;
    }
    if (t.text == "_") {
      o.kind = Operand::kSink;
    } else if ((o.index = find(t.text)) >= 0) {
      o.kind = Operand::kRegister;
    } else {
      o.kind = Operand::kSymbol;
      o.text = t.text;
    }
    if (accept("|")) {
      const std::string name = next().text;
      o.second = find(name);
      if (o.second < 0 && name != "_") refuse("unknown register " + name);
    }
    return o;
  }

  void statement() {
    Statement s;
    s.line = peek().line;
    s.source = source_;
    if (accept("@")) {
      s.guard_not = accept("!");
      const std::string name = next().text;
      s.guard = find(name);
      if (s.guard < 0) refuse("unknown predicate " + name);
    }
    if (peek().kind != Token::word) refuse("unexpected '" + peek().text + "'");
    s.op = split(next().text);
    if (s.op[0] == "bra") s.scopes = scopes_;
    while (!accept(";")) {
      s.args.push_back(operand());
      accept(",");
    }
    f_->statements.push_back(std::move(s));
  }

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  std::unique_ptr<Module> module_;
  std::string linkage_;
  std::map<std::string, u32> dynamic_;
  Function* f_ = nullptr;
  Source source_;  // of the statements that follow
  std::vector<int> scopes_;
  int scope_count_ = 0;
  std::vector<std::unordered_map<std::string, int>> names_;
};
}  // namespace

Module::~Module() {
  for (const auto& [name, address] : globals) memory().remove(address);
}
std::unique_ptr<Module> parse(const std::string& text) { return Parser(text).run(); }
}  // namespace retort::ptx
