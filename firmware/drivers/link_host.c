/* A byte link over a TCP socket of the host; the process ends when the tool hangs up. */
#define _XOPEN_SOURCE 700
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include "td_host.h"
#include "td_platform.h"

static int link_socket = -1;
static uint8_t incoming[4096], outgoing[4096];
static size_t incoming_next, incoming_end, outgoing_end;

int td_host_connect(uint16_t port)
{
    int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    link_socket = socket(AF_INET, SOCK_STREAM, 0);
    if (link_socket < 0 ||
        connect(link_socket, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        return -1;
    }
    return setsockopt(link_socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

void td_link_init(void)
{
}

int td_link_ready(void)
{
    struct pollfd link = {.fd = link_socket, .events = POLLIN};
    return incoming_next != incoming_end || poll(&link, 1, 1) > 0; /* in 1 ms */
}

uint8_t td_link_get(void)
{
    while (incoming_next == incoming_end) {
        ssize_t count = recv(link_socket, incoming, sizeof(incoming), 0);
        if (count > 0) {
            incoming_next = 0;
            incoming_end = (size_t)count;
        } else if (count == 0 || errno != EINTR) {
            _exit(0);
        }
    }
    return incoming[incoming_next++];
}

void td_link_flush(void)
{
    size_t sent = 0;
    while (sent < outgoing_end) {
        ssize_t count = send(link_socket, outgoing + sent, outgoing_end - sent, MSG_NOSIGNAL);
        if (count >= 0) {
            sent += (size_t)count;
        } else if (errno != EINTR) {
            _exit(0);
        }
    }
    outgoing_end = 0;
}

void td_link_put(uint8_t byte)
{
    if (outgoing_end == sizeof(outgoing)) {
        td_link_flush();
    }
    outgoing[outgoing_end++] = byte;
}
