//! Mail: rendering, transports, and the courier.
