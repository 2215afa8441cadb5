/* Checks for the test programs: a status that is not the expected one ends the program. */
#ifndef EXPECT_H
#define EXPECT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zeroport.h"

#define EXPECT(status, call) expect_status(status, call, #call, __FILE__, __LINE__)
#define HOLDS(condition) ((condition) ? (void)0 : fails(#condition, __FILE__, __LINE__))

static void fails(const char *what, const char *file, int line) {
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    exit(1);
}

static void expect_status(zp_status expected, zp_status found, const char *call, const char *file,
                          int line) {
    if (found != expected) {
        fprintf(stderr, "%s:%d: %s\n  gives: %s\n  not:   %s\n", file, line, call,
                zp_status_text(found), zp_status_text(expected));
        exit(1);
    }
}

#endif
