/* What the header says about sizes, places and numbers: each with its name, as ffi/abi.txt has them. */
#include <stdio.h>

#include "zeroport.h"

#define SAY(name, number) printf("%s %llu\n", name, (unsigned long long)(number))
#define TYPE(type)                                                                                 \
    do {                                                                                           \
        struct align_##type {                                                                      \
            char first;                                                                            \
            type it;                                                                               \
        };                                                                                         \
        SAY("size " #type, sizeof(type));                                                          \
        SAY("align " #type, offsetof(struct align_##type, it));                                    \
    } while (0)
#define FIELD(type, field) SAY("place " #type "." #field, offsetof(type, field))
#define VALUE(name) SAY("value " #name, name)

int main(void) {
    TYPE(zp_port);
    FIELD(zp_port, id);
    TYPE(zp_buffer);
    FIELD(zp_buffer, id);
    TYPE(zp_server);
    FIELD(zp_server, id);
    TYPE(zp_caller);
    FIELD(zp_caller, id);
    TYPE(zp_set);
    FIELD(zp_set, id);
    TYPE(zp_loop);
    FIELD(zp_loop, id);
    TYPE(zp_item);
    FIELD(zp_item, id);
    TYPE(zp_status);
    TYPE(zp_channel_options);
    FIELD(zp_channel_options, size);
    FIELD(zp_channel_options, trust);
    FIELD(zp_channel_options, wait);
    FIELD(zp_channel_options, capacity);
    FIELD(zp_channel_options, limit);
    FIELD(zp_channel_options, cold);
    FIELD(zp_channel_options, reserved);
    TYPE(zp_post);
    FIELD(zp_post, data);
    FIELD(zp_post, len);
    FIELD(zp_post, items);
    FIELD(zp_post, item_count);
    FIELD(zp_post, tag);
    FIELD(zp_post, reserved);
    TYPE(zp_loan);
    FIELD(zp_loan, data);
    FIELD(zp_loan, len);
    FIELD(zp_loan, opaque);
    TYPE(zp_message);
    FIELD(zp_message, data);
    FIELD(zp_message, len);
    FIELD(zp_message, tag);
    FIELD(zp_message, port_count);
    FIELD(zp_message, buffer_count);
    FIELD(zp_message, reserved);
    FIELD(zp_message, opaque);
    TYPE(zp_named);
    FIELD(zp_named, name);
    FIELD(zp_named, name_len);
    FIELD(zp_named, data);
    FIELD(zp_named, len);
    FIELD(zp_named, tag);
    FIELD(zp_named, is_request);
    TYPE(zp_info);
    FIELD(zp_info, max_payload);
    FIELD(zp_info, max_in_ring);
    FIELD(zp_info, sleeps);
    FIELD(zp_info, is_trusted);
    FIELD(zp_info, is_member);
    TYPE(zp_credentials);
    FIELD(zp_credentials, uid);
    FIELD(zp_credentials, gid);
    FIELD(zp_credentials, pid);
    FIELD(zp_credentials, pidfd);
    TYPE(zp_event);
    FIELD(zp_event, user);
    FIELD(zp_event, port);
    FIELD(zp_event, kind);
    FIELD(zp_event, status);
    FIELD(zp_event, message);
    TYPE(zp_handlers);
    FIELD(zp_handlers, size);
    FIELD(zp_handlers, on_message);
    FIELD(zp_handlers, on_close);
    FIELD(zp_handlers, on_error);
    FIELD(zp_handlers, removed);
    VALUE(ZP_TRUST_USUAL);
    VALUE(ZP_TRUST_TRUSTED);
    VALUE(ZP_TRUST_UNTRUSTED);
    VALUE(ZP_WAIT_ADAPTIVE);
    VALUE(ZP_WAIT_SLEEP);
    VALUE(ZP_WAIT_SPIN);
    VALUE(ZP_LIMIT_USUAL);
    VALUE(ZP_EVENT_MESSAGE);
    VALUE(ZP_EVENT_CLOSED);
    VALUE(ZP_EVENT_FAILED);
    VALUE(ZP_TICKET_LEN);
    VALUE(ZP_MAX_DESCRIPTORS);
    VALUE(ZP_TAG_FAILED);
    VALUE(ZP_NO_INDEX);
    return 0;
}
