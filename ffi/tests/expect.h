/* Checks for the test programs: a status that is not the expected one ends the program. */
#ifndef EXPECT_H
#define EXPECT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zeroport.h"

#define EXPECT(status, call) expect_status(status, call, #call, __FILE__, __LINE__)
#define HOLDS(condition) ((condition) ? (void)0 : fails(#condition, __FILE__, __LINE__))

static inline void fails(const char *what, const char *file, int line) {
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    exit(1);
}

static inline void expect_status(zp_status expected, zp_status found, const char *call, const char *file,
                          int line) {
    if (found != expected) {
        fprintf(stderr, "%s:%d: %s\n  gives: %s\n  not:   %s\n", file, line, call,
                zp_status_text(found), zp_status_text(expected));
        exit(1);
    }
}

/* A channel; its trust is ZP_TRUST_... */
static inline zp_status make_channel(zp_port ports[2], uint32_t trust) {
    zp_channel_options options = ZP_CHANNEL_OPTIONS_INIT;
    options.trust = trust;
    return zp_channel_new(ports, &options);
}

/* A message as it goes out. */
static inline zp_post a_post(const void *data, size_t len, const void *items, size_t item_count) {
    zp_post post = {0};
    post.data = data;
    post.len = len;
    post.items = items;
    post.item_count = item_count;
    return post;
}

#endif
