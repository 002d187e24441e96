"""Isolation: a program in namespaces of its own, whose only way out is the relay of its run.

    exeat run --isolate               launcher                         init             the program
      (host's namespaces)   spawn ->    unshare, lo up, listen
      relay accepts there   <- fd --    masks, /proc          fork ->   pid 1   fork ->   other uid, no capability, exec

The relay's listening socket is made inside the new network namespace and handed out: a listening socket stays in the
namespace it was made in, whoever accepts on it. So the program reaches the relay on its own 127.0.0.1, and that
namespace needs no cable, no address and no route to anywhere.
"""
