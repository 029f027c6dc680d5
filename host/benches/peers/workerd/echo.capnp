# The bench's echo on workerd, at a port of its choice.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "echo", worker = (
    modules = [(name = "echo.mjs", esModule = embed "echo.mjs")],
    compatibilityDate = "2026-01-01",
  ))],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "echo")],
);
