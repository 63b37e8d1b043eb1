// Tables of arithmetic instructions. Their keys are whole opcodes, so that a modifier that nobody
// thought of is refused and not ignored.
#pragma once
#include <string>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "tools/ptx/instructions.h"

namespace retort::ptx {
template <class V>
using Raw = std::conditional_t<sizeof(V) == 8, u64, u32>;
template <class V>
inline V get(Raw<V> s) {
  if constexpr (sizeof(V) >= 4)
    return std::bit_cast<V>(s);
  else
    return static_cast<V>(s);
}
template <class V>
inline Raw<V> put(V v) {
  if constexpr (std::is_same_v<V, float>)
    return v == v ? std::bit_cast<u32>(v) : 0x7fff'ffffu;  // the canonical NaN
  else if constexpr (sizeof(V) >= 4)
    return std::bit_cast<Raw<V>>(v);
  else
    return static_cast<u16>(v);
}
template <class V>
Raw<V>* at(Warp& w, u32 slot) {
  return reinterpret_cast<Raw<V>*>(w.r + slot);
}

template <class D, class A, auto F>
void un(Warp& w, const Inst& i, u32 m) {
  auto* d = at<D>(w, i.d);
  const auto* a = at<A>(w, i.a);
  if (m == ~0u) {
#pragma GCC ivdep
    for (int l = 0; l < 32; ++l) d[l] = put<D>(F(get<A>(a[l])));
  } else
    each(m, [&](u32 l) { d[l] = put<D>(F(get<A>(a[l]))); });
}
template <class D, class A, class B, auto F>
void bin(Warp& w, const Inst& i, u32 m) {
  auto* d = at<D>(w, i.d);
  const auto* a = at<A>(w, i.a);
  const auto* b = at<B>(w, i.b);
  if (m == ~0u) {
#pragma GCC ivdep
    for (int l = 0; l < 32; ++l) d[l] = put<D>(F(get<A>(a[l]), get<B>(b[l])));
  } else
    each(m, [&](u32 l) { d[l] = put<D>(F(get<A>(a[l]), get<B>(b[l]))); });
}
template <class D, class A, class B, class C, auto F>
void tri(Warp& w, const Inst& i, u32 m) {
  auto* d = at<D>(w, i.d);
  const auto* a = at<A>(w, i.a);
  const auto* b = at<B>(w, i.b);
  const auto* c = at<C>(w, i.c);
  if (m == ~0u) {
#pragma GCC ivdep
    for (int l = 0; l < 32; ++l) d[l] = put<D>(F(get<A>(a[l]), get<B>(b[l]), get<C>(c[l])));
  } else
    each(m, [&](u32 l) { d[l] = put<D>(F(get<A>(a[l]), get<B>(b[l]), get<C>(c[l]))); });
}
// setp: a mask of all lanes, of which those of m are kept
template <class A, auto F>
void set(Warp& w, const Inst& i, u32 m) {
  const auto* a = at<A>(w, i.a);
  const auto* b = at<A>(w, i.b);
  u32 bits = 0;
  for (int l = 0; l < 32; ++l) bits |= static_cast<u32>(F(get<A>(a[l]), get<A>(b[l]))) << l;
  w.p[i.d] = (w.p[i.d] & ~m) | (bits & m);
  if (i.flag) w.p[i.e] = (w.p[i.e] & ~m) | (~bits & m);
}
template <class V>
void selp(Warp& w, const Inst& i, u32 m) {
  auto* d = at<V>(w, i.d);
  const auto* a = at<V>(w, i.a);
  const auto* b = at<V>(w, i.b);
  const u32 p = i.flag ? ~w.p[i.c] : w.p[i.c];
  if (m == ~0u) {
#pragma GCC ivdep
    for (int l = 0; l < 32; ++l) d[l] = (p >> l & 1) ? a[l] : b[l];
  } else
    each(m, [&](u32 l) { d[l] = (p >> l & 1) ? a[l] : b[l]; });
}

struct Entry {
  Handler fn;
  std::vector<std::string> types;  // of d, a, b, c, e
};
using Table = std::unordered_map<std::string, Entry>;
void add_integers(Table& t);
void add_floats(Table& t);
void add_conversions(Table& t);
void add_comparisons(Table& t);

template <class V>
constexpr const char* name_of() {
  constexpr bool kFloat = std::is_floating_point_v<V>, kSigned = std::is_signed_v<V>;
  if constexpr (kFloat) return sizeof(V) == 8 ? "f64" : "f32";
  if constexpr (sizeof(V) == 2) return kSigned ? "s16" : "u16";
  if constexpr (sizeof(V) == 4) return kSigned ? "s32" : "u32";
  return kSigned ? "s64" : "u64";
}
template <class V>
std::string suffix() {
  return std::string(".") + name_of<V>();
}
template <class V>
std::string bits() {
  return ".b" + std::to_string(8 * sizeof(V));
}
// the same type throughout
template <auto F, class... V>
void add_un(Table& t, const std::string& op) {
  ((t[op + suffix<V>()] = {un<V, V, F>, {name_of<V>(), name_of<V>()}}), ...);
}
template <auto F, class... V>
void add_bin(Table& t, const std::string& op) {
  ((t[op + suffix<V>()] = {bin<V, V, V, F>, {name_of<V>(), name_of<V>(), name_of<V>()}}), ...);
}
template <auto F, class... V>
void add_tri(Table& t, const std::string& op) {
  ((t[op + suffix<V>()] = {tri<V, V, V, V, F>,
                           {name_of<V>(), name_of<V>(), name_of<V>(), name_of<V>()}}),
   ...);
}
template <auto F, class... V>
void add_bits_un(Table& t, const std::string& op) {
  ((t[op + bits<V>()] = {un<V, V, F>, {name_of<V>(), name_of<V>()}}), ...);
}
template <auto F, class... V>
void add_bits_bin(Table& t, const std::string& op) {
  ((t[op + bits<V>()] = {bin<V, V, V, F>, {name_of<V>(), name_of<V>(), name_of<V>()}}), ...);
}
template <auto F, class... V>
void add_set(Table& t, const std::string& op) {
  ((t["setp." + op + suffix<V>()] = {set<V, F>, {"pred", name_of<V>(), name_of<V>()}}), ...);
}
template <auto F, class D, class A>
void add_cvt(Table& t, const std::string& modifiers = "") {
  t["cvt" + modifiers + suffix<D>() + suffix<A>()] = {un<D, A, F>, {name_of<D>(), name_of<A>()}};
}
template <class A, class... D>
void add_int_cvt(Table& t) {
  (add_cvt<([](A a) { return static_cast<D>(a); }), D, A>(t), ...);
}

}  // namespace retort::ptx
