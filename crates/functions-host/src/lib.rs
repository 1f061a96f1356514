//! An Azure Functions host for custom handlers: function.json in, invocations out.
