/* Checks for the C++ test programs: a result that is not the expected one ends the program. */
#ifndef EXPECT_HPP
#define EXPECT_HPP

#include <cstdio>
#include <cstdlib>

#include "zeroport.hpp"

#define EXPECT(status, ...) expect_status(status, (__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)
#define HOLDS(...) ((__VA_ARGS__) ? (void)0 : fails(#__VA_ARGS__, __FILE__, __LINE__))

[[noreturn]] inline void fails(const char *what, const char *file, int line) {
    std::fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    std::exit(1);
}

inline void expect_status(zp_status expected, const zeroport::outcome &found, const char *call,
                          const char *file, int line) {
    if (found.status() != expected) {
        std::fprintf(stderr, "%s:%d: %s\n  gives: %s\n  not:   %s\n", file, line, call,
                     found.text(), zp_status_text(expected));
        std::exit(1);
    }
}

/* What a call gives that must succeed. */
#define GET(...) expect_value((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)

template <class T>
T expect_value(zeroport::result<T> &&found, const char *call, const char *file, int line) {
    expect_status(ZP_OK, found, call, file, line);
    return *std::move(found);
}

inline zeroport::channel a_channel(std::uint32_t trust = ZP_TRUST_USUAL) {
    zeroport::channel_options options;
    options.trust = trust;
    return GET(zeroport::make_channel(options));
}

/* Other files of the program use the header, too. */
std::uint32_t elsewhere();

#endif
