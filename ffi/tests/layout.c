/* What the header says about sizes, places and numbers, in the order in which c.rs has them. */
#include <stdio.h>

#include "zeroport.h"

struct port_alignment {
    char first;
    zp_port port;
};

struct message_alignment {
    char first;
    zp_message message;
};

static void print(size_t number) { printf("%lu\n", (unsigned long)number); }

int main(void) {
    print(sizeof(zp_port));
    print(offsetof(struct port_alignment, port));
    print(sizeof(zp_message));
    print(offsetof(struct message_alignment, message));
    print(offsetof(zp_message, data));
    print(offsetof(zp_message, len));
    print(offsetof(zp_message, tag));
    print(offsetof(zp_message, port_count));
    print(offsetof(zp_message, opaque));
    print(sizeof(zp_status));
    print(ZP_NO_INDEX);
    print(ZP_VERSION);
    return 0;
}
