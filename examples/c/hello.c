/* Two ports, and a message from one to the other. */
#include <stdio.h>
#include <zeroport.h>

int main(void) {
    zp_port ports[2];
    zp_message message = {0};
    zp_status status = zp_channel_new(ports, NULL);

    if (status == ZP_OK) status = zp_port_post(ports[0], "hello", 5);
    if (status == ZP_OK) status = zp_port_recv(ports[1], &message);
    if (status == ZP_OK) printf("received: %.*s\n", (int)message.len, (const char *)message.data);

    zp_message_release(&message);
    zp_port_close(ports[0]);
    zp_port_close(ports[1]);
    printf("hello: %s\n", zp_status_text(status));
    return status != ZP_OK;
}
