-- A shop small enough to check by hand, in the shape that the contracts give silver.
create table silver.shop_customers (
    customer_id bigint, email text, full_name text, country text, segment text,
    signed_up_at timestamptz, updated_at timestamptz, _load_id bigint not null, _row bigint not null);
create table silver.shop_products (
    product_id bigint, sku text, name text, category text, price numeric(12,2), currency text,
    active boolean, attributes json, _load_id bigint not null, _row bigint not null);
create table silver.shop_orders (
    order_id bigint, customer_id bigint, status text, ordered_at timestamptz, updated_at timestamptz,
    currency text, items_count bigint, total numeric(12,2), _load_id bigint not null, _row bigint not null);
create table silver.shop_order_items (
    order_id bigint, line_no bigint, product_id bigint, quantity bigint, unit_price numeric(12,2),
    line_total numeric(12,2), _load_id bigint not null, _row bigint not null);
create table silver.shop_payments (
    payment_id bigint, order_id bigint, method text, amount numeric(12,2), paid_at timestamptz,
    status text, _load_id bigint not null, _row bigint not null);
create table silver.shop_web_events (
    event_id uuid, occurred_at timestamptz, session_id text, customer_id bigint, type text, url text,
    product_id bigint, properties json, _load_id bigint not null, _row bigint not null);

insert into silver.shop_customers values
    (1, 'ada@example.com', 'Ada Byron', 'GB', 'vip', '2026-01-01 10:00Z', '2026-01-01 10:00Z', 1, 1),
    (2, 'bob@example.com', 'Bob Stone', 'DE', 'consumer', '2026-01-02 10:00Z', '2026-01-02 10:00Z', 1, 2),
    (3, 'eve@example.com', 'Eve Moon', 'FR', 'consumer', '2026-01-03 10:00Z', '2026-01-03 10:00Z', 1, 3);
insert into silver.shop_products values
    (10, 'MUG-1', 'Mug', 'kitchen', 8.00, 'EUR', true, '{}', 2, 1),
    (11, 'PAN-1', 'Pan', 'kitchen', 30.00, 'EUR', true, '{}', 2, 2),
    (12, 'PEN-1', 'Pen', 'office', 2.00, 'EUR', false, '{}', 2, 3);
insert into silver.shop_orders values
    (100, 1, 'delivered', '2026-02-01 09:00Z', '2026-02-03 09:00Z', 'EUR', 2, 16.00, 3, 1),
    (101, 1, 'paid', '2026-02-01 23:30Z', '2026-02-01 23:30Z', 'EUR', 1, 30.00, 3, 2),
    (102, 2, 'cancelled', '2026-02-02 00:10Z', '2026-02-02 00:10Z', 'EUR', 1, 30.00, 3, 3),
    (103, 2, 'paid', '2026-02-02 12:00Z', '2026-02-02 12:00Z', 'EUR', 3, 46.00, 4, 1),
    (104, 2, 'paid', '2026-02-03 12:00Z', '2026-02-03 12:00Z', 'USD', 1, 8.00, 4, 2);
insert into silver.shop_order_items values
    (100, 1, 10, 2, 8.00, 16.00, 5, 1),
    (101, 1, 11, 1, 30.00, 30.00, 5, 2),
    (102, 1, 11, 1, 30.00, 30.00, 5, 3),
    (103, 1, 11, 1, 30.00, 30.00, 5, 4),
    (103, 2, 10, 2, 8.00, 16.00, 5, 5),
    (104, 1, 10, 1, 8.00, 8.00, 5, 6);
insert into silver.shop_payments values
    (1000, 100, 'card', 16.00, '2026-02-01 09:01Z', 'captured', 6, 1),
    (1001, 101, 'card', 30.00, '2026-02-01 23:31Z', 'captured', 6, 2),
    (1002, 103, 'paypal', 46.00, '2026-02-02 12:01Z', 'failed', 6, 3),
    (1003, 103, 'card', 46.00, '2026-02-02 12:02Z', 'captured', 6, 4),
    (1004, 104, 'card', 8.00, '2026-02-03 12:01Z', 'captured', 6, 5),
    (1005, 101, 'card', 30.00, '2026-02-03 09:00Z', 'refunded', 6, 6);
insert into silver.shop_web_events values
    ('00000000-0000-4000-8000-000000000001', '2026-02-01 08:50Z', 's1', 1, 'page_view', '/', null, '{}', 7, 1),
    ('00000000-0000-4000-8000-000000000002', '2026-02-01 08:51Z', 's1', 1, 'product_view', '/p/10', 10, '{}', 7, 2),
    ('00000000-0000-4000-8000-000000000003', '2026-02-01 08:55Z', 's1', 1, 'add_to_cart', '/p/10', 10, '{}', 7, 3),
    ('00000000-0000-4000-8000-000000000004', '2026-02-01 08:58Z', 's1', 1, 'checkout', '/checkout', null, '{}', 7, 4),
    ('00000000-0000-4000-8000-000000000005', '2026-02-01 09:00Z', 's1', 1, 'purchase', '/thanks', null, '{}', 7, 5),
    ('00000000-0000-4000-8000-000000000006', '2026-02-01 23:55Z', 's2', null, 'page_view', '/', null, '{}', 7, 6),
    ('00000000-0000-4000-8000-000000000007', '2026-02-02 00:05Z', 's2', null, 'product_view', '/p/11', 11, '{}', 7, 7),
    ('00000000-0000-4000-8000-000000000008', '2026-02-01 12:00Z', 's3', null, 'page_view', '/', null, '{}', 7, 8);
