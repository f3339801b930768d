/* The firmware as a process: serve the protocol to the tool that listens on a TCP port. */
#define _XOPEN_SOURCE 700
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "td_commands.h"
#include "td_host.h"
#include "td_platform.h"

/* The model runs on a stack of ours, so that its depth can be measured as on a board; what lies
 * below is made inaccessible, so that an overflow faults. 64 KiB: the largest page in use. */
#define GUARD_BYTES 65536u
static uint8_t guarded_stack[GUARD_BYTES + TD_STACK_BYTES] __attribute__((aligned(GUARD_BYTES)));

uint8_t *td_stack_bottom(void)
{
    return guarded_stack + GUARD_BYTES;
}

uint8_t *td_stack_top(void)
{
    return guarded_stack + sizeof(guarded_stack);
}

static void *serve(void *unused)
{
    td_main();
    return unused;
}

/* A crash answers as a board's hard fault would; async-signal-safe: it only sends and receives. */
static void crashed(int number)
{
    td_commands_fault(0x200u | (uint32_t)number, 0, 0);
}

static int catch_crashes(void)
{
    static uint8_t spare[65536] __attribute__((aligned(16)));
    stack_t own = {.ss_sp = spare, .ss_size = sizeof(spare), .ss_flags = 0};
    struct sigaction action = {.sa_handler = crashed, .sa_flags = SA_ONSTACK};
    return sigaltstack(&own, 0) == 0 && sigemptyset(&action.sa_mask) == 0 &&
           sigaction(SIGSEGV, &action, 0) == 0 && sigaction(SIGBUS, &action, 0) == 0 &&
           sigaction(SIGILL, &action, 0) == 0 && sigaction(SIGFPE, &action, 0) == 0;
}

void td_setup_init(void)
{
    if (!catch_crashes()) {
        perror("sigaction");
        exit(1);
    }
}

int main(int argument_count, char **arguments)
{
    pthread_t thread;
    pthread_attr_t attributes;
    char *end = 0;
    long port = argument_count == 2 ? strtol(arguments[1], &end, 10) : 0;
    if (port < 1 || port > 65535 || *end != '\0') {
        fputs("usage: firmware.elf PORT   (connects to 127.0.0.1:PORT)\n", stderr);
        return 2;
    }
    if (td_host_connect((uint16_t)port) != 0) {
        perror("connect");
        return 1;
    }
    if (mprotect(guarded_stack, GUARD_BYTES, PROT_NONE) != 0 ||
        pthread_attr_init(&attributes) != 0 ||
        pthread_attr_setstack(&attributes, td_stack_bottom(), TD_STACK_BYTES) != 0 ||
        pthread_create(&thread, &attributes, serve, 0) != 0) {
        fputs("cannot start the model's thread\n", stderr);
        return 1;
    }
    return pthread_join(thread, 0);
}
